import numpy as np
import torch
from base import BaseTrainer
from utils import inf_loop, MetricTracker


class Trainer(BaseTrainer):
    """
    Domain adversarial training over subjects. Batches are (signal, target, subject).
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

        self.train_metrics = MetricTracker('loss', 'subject_acc', *[m.__name__ for m in self.metric_ftns],
                                           writer=self.writer)
        self.valid_metrics = MetricTracker('loss', 'subject_acc', *[m.__name__ for m in self.metric_ftns],
                                           writer=self.writer)

    def _alpha(self, epoch, batch_idx):
        """ strength of the gradient reversal, 0 at the beginning of training and nearly 1 at the end """
        p = ((epoch - 1) * self.len_epoch + batch_idx) / (self.epochs * self.len_epoch)
        return 2.0 / (1.0 + np.exp(-10 * p)) - 1.0

    def _train_epoch(self, epoch):
        self.model.train()
        self.train_metrics.reset()
        for batch_idx, (data, target, subject) in enumerate(self.data_loader):
            data, target, subject = data.to(self.device), target.to(self.device), subject.to(self.device)
            alpha = self._alpha(epoch, batch_idx)

            self.optimizer.zero_grad()
            output, subject_output = self.model(data, alpha)
            loss = self.criterion(output, target, subject_output, subject)
            loss.backward()
            self.optimizer.step()

            self.writer.set_step((epoch - 1) * self.len_epoch + batch_idx)
            self.writer.add_scalar('alpha', alpha)
            self._update(self.train_metrics, loss, output, target, subject_output, subject)

            if batch_idx % self.log_step == 0:
                self.logger.debug('Train Epoch: {} {} Loss: {:.6f}'.format(
                    epoch, self._progress(batch_idx), loss.item()))

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
        self.model.eval()
        self.valid_metrics.reset()
        with torch.no_grad():
            for batch_idx, (data, target, subject) in enumerate(self.valid_data_loader):
                data, target, subject = data.to(self.device), target.to(self.device), subject.to(self.device)

                output, subject_output = self.model(data)
                loss = self.criterion(output, target, subject_output, subject)

                self.writer.set_step((epoch - 1) * len(self.valid_data_loader) + batch_idx, 'valid')
                self._update(self.valid_metrics, loss, output, target, subject_output, subject)

        for name, p in self.model.named_parameters():
            self.writer.add_histogram(name, p, bins='auto')
        return self.valid_metrics.result()

    def _update(self, metrics, loss, output, target, subject_output, subject):
        metrics.update('loss', loss.item())
        metrics.update('subject_acc', (subject_output.argmax(dim=1) == subject).float().mean().item())
        for met in self.metric_ftns:
            metrics.update(met.__name__, met(output, target))

    def _progress(self, batch_idx):
        if hasattr(self.data_loader, 'n_samples'):
            done, total = batch_idx * self.data_loader.batch_size, self.data_loader.n_samples
        else:
            done, total = batch_idx, self.len_epoch    # an endless loader knows no n_samples
        return '[{}/{} ({:.0f}%)]'.format(done, total, 100.0 * done / total)
