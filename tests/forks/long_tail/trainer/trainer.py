import numpy as np
import torch
from torchvision.utils import make_grid
from base import BaseTrainer
from utils import inf_loop, MetricTracker


class Trainer(BaseTrainer):
    """
    Trainer class; the loss gets the class counts of the training data, from epoch `drw_epoch` on
    """
    def __init__(self, model, criterion, metric_ftns, optimizer, config, device,
                 data_loader, valid_data_loader=None, lr_scheduler=None, len_epoch=None):
        super().__init__(model, criterion, metric_ftns, optimizer, config)
        self.config = config
        self.device = device
        self.data_loader = data_loader
        self.len_epoch = len_epoch
        if len_epoch is None:
            self.len_epoch = len(self.data_loader)
        else:
            # count iterations, not passes over the data
            self.data_loader = inf_loop(data_loader)
        self.valid_data_loader = valid_data_loader
        self.do_validation = self.valid_data_loader is not None
        self.lr_scheduler = lr_scheduler
        self.log_step = int(np.sqrt(data_loader.batch_size))
        self.class_counts = data_loader.class_counts.to(self.device)
        self.drw_epoch = config['trainer'].get('drw_epoch', 2)

        self.train_metrics = MetricTracker('loss', *[m.__name__ for m in self.metric_ftns], writer=self.writer)
        self.valid_metrics = MetricTracker('loss', *[m.__name__ for m in self.metric_ftns], writer=self.writer)

    def _train_epoch(self, epoch):
        """ one epoch of training, then validation; returns the means of both """
        if epoch >= self.drw_epoch:
            class_counts = self.class_counts
        else:
            class_counts = torch.ones_like(self.class_counts)
        self.model.train()
        self.train_metrics.reset()
        for batch_idx, (data, target) in enumerate(self.data_loader):
            data, target = data.to(self.device), target.to(self.device)

            self.optimizer.zero_grad()
            output = self.model(data)
            loss = self.criterion(output, target, class_counts)
            loss.backward()
            self.optimizer.step()

            self.writer.set_step((epoch - 1) * self.len_epoch + batch_idx)
            self.train_metrics.update('loss', loss.item())
            for met in self.metric_ftns:
                self.train_metrics.update(met.__name__, met(output, target))

            if batch_idx % self.log_step == 0:
                self.logger.debug('Train Epoch: {} {} Loss: {:.6f}'.format(
                    epoch, self._progress(batch_idx), loss.item()))
                self.writer.add_image('input', make_grid(data.cpu(), nrow=8, normalize=True))

            if batch_idx == self.len_epoch:
                break
        log = self.train_metrics.result()

        if self.do_validation:
            val_log = self._valid_epoch(epoch)
            log.update(**{'val_' + k: v for k, v in val_log.items()})

        if self.lr_scheduler is not None:
            self.lr_scheduler.step()
        return log

    def _valid_epoch(self, epoch):
        """ the balanced data, after an epoch of training """
        self.model.eval()
        self.valid_metrics.reset()
        correct, total = torch.zeros(len(self.class_counts)), torch.zeros(len(self.class_counts))
        with torch.no_grad():
            for batch_idx, (data, target) in enumerate(self.valid_data_loader):
                data, target = data.to(self.device), target.to(self.device)

                output = self.model(data)
                loss = self.criterion(output, target, torch.ones_like(self.class_counts))

                self.writer.set_step((epoch - 1) * len(self.valid_data_loader) + batch_idx, 'valid')
                self.valid_metrics.update('loss', loss.item())
                for met in self.metric_ftns:
                    self.valid_metrics.update(met.__name__, met(output, target))
                total += torch.bincount(target.cpu(), minlength=len(total))
                correct += torch.bincount(target[output.argmax(dim=1) == target].cpu(), minlength=len(total))

        log = self.valid_metrics.result()
        many = self.class_counts.cpu() >= 20
        log['many_shot_acc'] = (correct[many].sum() / total[many].sum()).item()
        log['few_shot_acc'] = (correct[~many].sum() / total[~many].sum()).item()
        for name, p in self.model.named_parameters():
            self.writer.add_histogram(name, p, bins='auto')
        return log

    def _progress(self, batch_idx):
        if hasattr(self.data_loader, 'n_samples'):
            done, total = batch_idx * self.data_loader.batch_size, self.data_loader.n_samples
        else:
            done, total = batch_idx, self.len_epoch    # an endless loader knows no n_samples
        return '[{}/{} ({:.0f}%)]'.format(done, total, 100.0 * done / total)
