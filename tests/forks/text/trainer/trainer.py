import numpy as np
import torch
from torch.nn.utils import clip_grad_norm_
from base import BaseTrainer
from utils import inf_loop, MetricTracker


class Trainer(BaseTrainer):
    """
    Trainer for batches of (tokens, lengths, labels, ids)
    """
    def __init__(self, model, criterion, metric_ftns, optimizer, config, device,
                 data_loader, valid_data_loader=None, lr_scheduler=None, len_epoch=None):
        super().__init__(model, criterion, metric_ftns, optimizer, config)
        self.config = config
        self.device = device
        self.data_loader = data_loader
        self.decode = data_loader.decode
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
        self.clip = 1.0

        self.train_metrics = MetricTracker('loss', 'grad_norm', *[m.__name__ for m in self.metric_ftns],
                                           writer=self.writer)
        self.valid_metrics = MetricTracker('loss', *[m.__name__ for m in self.metric_ftns], writer=self.writer)

    def _train_epoch(self, epoch):
        self.model.train()
        self.train_metrics.reset()
        for batch_idx, (tokens, lengths, labels, _) in enumerate(self.data_loader):
            tokens, labels = tokens.to(self.device), labels.to(self.device)   # lengths stay on the cpu

            self.optimizer.zero_grad()
            output = self.model(tokens, lengths)
            loss = self.criterion(output, labels)
            loss.backward()
            grad_norm = clip_grad_norm_(self.model.parameters(), self.clip)
            self.optimizer.step()

            self.writer.set_step((epoch - 1) * self.len_epoch + batch_idx)
            self.train_metrics.update('loss', loss.item(), n=len(labels))
            self.train_metrics.update('grad_norm', float(grad_norm))
            for met in self.metric_ftns:
                self.train_metrics.update(met.__name__, met(output, labels), n=len(labels))

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
        wrong = []
        with torch.no_grad():
            for batch_idx, (tokens, lengths, labels, ids) in enumerate(self.valid_data_loader):
                tokens, labels = tokens.to(self.device), labels.to(self.device)

                output = self.model(tokens, lengths)
                loss = self.criterion(output, labels)

                self.writer.set_step((epoch - 1) * len(self.valid_data_loader) + batch_idx, 'valid')
                self.valid_metrics.update('loss', loss.item(), n=len(labels))
                for met in self.metric_ftns:
                    self.valid_metrics.update(met.__name__, met(output, labels), n=len(labels))

                mistakes = (output.argmax(dim=1) != labels).cpu()
                wrong += ['#{}: {}'.format(i.item(), self.decode(t.tolist()))
                          for i, t in zip(ids[mistakes], tokens.cpu()[mistakes])]

        if wrong:
            self.writer.add_text('mistakes', '  \n'.join(wrong[:8]))
        for name, p in self.model.named_parameters():
            self.writer.add_histogram(name, p, bins='auto')
        return self.valid_metrics.result()

    def _progress(self, batch_idx):
        if hasattr(self.data_loader, 'n_samples'):
            done, total = batch_idx * self.data_loader.batch_size, self.data_loader.n_samples
        else:
            done, total = batch_idx, self.len_epoch    # an endless loader knows no n_samples
        return '[{}/{} ({:.0f}%)]'.format(done, total, 100.0 * done / total)
