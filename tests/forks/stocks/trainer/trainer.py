import numpy as np
import torch
from base import BaseTrainer
from utils import inf_loop, MetricTracker


class Trainer(BaseTrainer):
    """
    Iteration-based trainer: an "epoch" is `len_epoch` steps, wherever in the data that ends
    """
    def __init__(self, model, criterion, metric_ftns, optimizer, config, device,
                 data_loader, valid_data_loader=None, lr_scheduler=None):
        super().__init__(model, criterion, metric_ftns, optimizer, config)
        self.config = config
        self.device = device
        self.len_epoch = config['trainer']['len_epoch']
        self.data_loader = inf_loop(data_loader)
        self.valid_data_loader = valid_data_loader
        self.lr_scheduler = lr_scheduler
        self.log_step = int(np.sqrt(data_loader.batch_size))

        self.train_metrics = MetricTracker('loss', *[m.__name__ for m in self.metric_ftns], writer=self.writer)
        self.valid_metrics = MetricTracker('loss', *[m.__name__ for m in self.metric_ftns], writer=self.writer)

    def _train_epoch(self, epoch):
        self.model.train()
        self.train_metrics.reset()
        for batch_idx in range(self.len_epoch):
            x, y = next(self.data_loader)
            x, y = x.to(self.device), y.to(self.device)

            self.optimizer.zero_grad()
            output = self.model(x)
            loss = self.criterion(output, y)
            loss.backward()
            self.optimizer.step()

            self.writer.set_step((epoch - 1) * self.len_epoch + batch_idx)
            self.train_metrics.update('loss', loss.item())
            for met in self.metric_ftns:
                self.train_metrics.update(met.__name__, met(output, y))

            if batch_idx % self.log_step == 0:
                self.logger.debug('Epoch: {} step: {}/{} loss: {:.6f}'.format(
                    epoch, batch_idx, self.len_epoch, self.train_metrics.avg('loss')))
        log = self.train_metrics.result()

        if self.valid_data_loader is not None:
            val_log = self._valid_epoch(epoch)
            log.update({'val_' + k: v for k, v in val_log.items()})
            if self.lr_scheduler is not None:
                self.lr_scheduler.step(log['val_loss'])
        log['lr'] = self.optimizer.param_groups[0]['lr']
        return log

    def _valid_epoch(self, epoch):
        self.model.eval()
        self.valid_metrics.reset()
        outputs, targets = [], []
        with torch.no_grad():
            for x, y in self.valid_data_loader:
                outputs.append(self.model(x.to(self.device)))
                targets.append(y.to(self.device))
        # over the whole series at once
        output, target = torch.cat(outputs), torch.cat(targets)
        self.writer.set_step(epoch * self.len_epoch, 'valid')
        self.valid_metrics.update('loss', self.criterion(output, target).item())
        for met in self.metric_ftns:
            self.valid_metrics.update(met.__name__, met(output, target))
        self.writer.add_scalars('last_day', {'predicted': output[-1].item(), 'true': target[-1].item()})
        return self.valid_metrics.result()
