import numpy as np
import torch
from torchvision.utils import make_grid
from base import BaseTrainer
from utils import inf_loop, MetricTracker


class Trainer(BaseTrainer):
    """
    Trains and validates on batches of (data, target)
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

        names = [m.__name__ for m in self.metric_ftns]
        self.train_metrics = MetricTracker('loss', *names, writer=self.writer)
        self.valid_metrics = MetricTracker('loss', *names, writer=self.writer)

    def _train_epoch(self, epoch):
        """ one epoch of training, then validation; returns the means of both """
        self.model.train()
        self.train_metrics.reset()
        for batch_idx, (data, target) in enumerate(self.data_loader):
            data, target = data.to(self.device), target.to(self.device)
            output = self.model(data)
            loss = self.criterion(output, target)

            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()

            self.writer.set_step((epoch - 1) * self.len_epoch + batch_idx)
            self._track(self.train_metrics, loss, output, target)
            if batch_idx % self.log_step == 0:
                text = 'Train Epoch: {} {} Loss: {:.6f}'
                self.logger.debug(text.format(epoch, self._progress(batch_idx), loss.item()))
                self._show(data)

            if batch_idx == self.len_epoch:
                break
        log = self.train_metrics.result()

        if self.do_validation:
            for name, value in self._valid_epoch(epoch).items():
                log['val_' + name] = value
        if self.lr_scheduler is not None:
            self.lr_scheduler.step()
        return log

    def _valid_epoch(self, epoch):
        """ means over the validation data, after an epoch of training """
        self.model.eval()
        self.valid_metrics.reset()
        with torch.no_grad():
            for batch_idx, (data, target) in enumerate(self.valid_data_loader):
                data, target = data.to(self.device), target.to(self.device)
                output = self.model(data)
                loss = self.criterion(output, target)

                self.writer.set_step((epoch - 1) * len(self.valid_data_loader) + batch_idx, 'valid')
                self._track(self.valid_metrics, loss, output, target)
                self._show(data)

        # how the weights are spread, in tensorboard
        for name, p in self.model.named_parameters():
            self.writer.add_histogram(name, p, bins='auto')
        return self.valid_metrics.result()

    def _track(self, metrics, loss, output, target):
        metrics.update('loss', loss.item())
        for met in self.metric_ftns:
            metrics.update(met.__name__, met(output, target))

    def _show(self, data):
        self.writer.add_image('input', make_grid(data.cpu(), nrow=8, normalize=True))

    def _progress(self, batch_idx):
        if hasattr(self.data_loader, 'n_samples'):
            done, total = batch_idx * self.data_loader.batch_size, self.data_loader.n_samples
        else:
            done, total = batch_idx, self.len_epoch    # an endless loader knows no n_samples
        return '[{}/{} ({:.0f}%)]'.format(done, total, 100.0 * done / total)
