import torch
from tqdm import tqdm
from base import BaseTrainer
from model.loss import cross_entropy
from utils import MetricTracker


class Trainer(BaseTrainer):
    """
    Trains with a loss that remembers each sample. Batches are (image, label, index, true label); the true label is only
    looked at to see how much of the noise has been learnt.
    """
    def __init__(self, model, criterion, metric_ftns, optimizer, config, device,
                 data_loader, valid_data_loader=None, lr_scheduler=None, len_epoch=None):
        super().__init__(model, criterion, metric_ftns, optimizer, config)
        self.device = device
        self.data_loader = data_loader
        self.valid_data_loader = valid_data_loader
        self.lr_scheduler = lr_scheduler
        self.len_epoch = len(data_loader) if len_epoch is None else len_epoch

        num_classes = config['arch']['args']['num_classes']
        self.train_criterion = criterion(len(data_loader.dataset), num_classes, device)
        self.val_criterion = cross_entropy

        names = [m.__name__ for m in self.metric_ftns]
        self.train_metrics = MetricTracker('loss', 'true_acc', *names, writer=self.writer)
        self.valid_metrics = MetricTracker('loss', 'true_acc', *names, writer=self.writer)

    def _train_epoch(self, epoch):
        self.model.train()
        self.train_metrics.reset()
        with tqdm(self.data_loader, desc='epoch {}'.format(epoch), leave=False) as progress:
            for batch_idx, (data, label, index, true_label) in enumerate(progress):
                data, label, true_label = data.to(self.device), label.to(self.device), true_label.to(self.device)

                output = self.model(data)
                loss = self.train_criterion(output, label, index.to(self.device))
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()

                self.writer.set_step((epoch - 1) * self.len_epoch + batch_idx)
                self._update_metrics(self.train_metrics, loss, output, label, true_label)
                progress.set_postfix(loss=loss.item())

                if batch_idx + 1 == self.len_epoch:
                    break
        log = self.train_metrics.result()

        if self.valid_data_loader is not None:
            log.update({'val_' + k: v for k, v in self._valid_epoch(epoch).items()})
        if self.lr_scheduler is not None:
            self.lr_scheduler.step()
        self.writer.add_histogram('elr_target', self.train_criterion.target.max(dim=1)[0])
        return log

    def _valid_epoch(self, epoch):
        self.model.eval()
        self.valid_metrics.reset()
        with torch.no_grad():
            for batch_idx, (data, label, _, true_label) in enumerate(self.valid_data_loader):
                data, label, true_label = data.to(self.device), label.to(self.device), true_label.to(self.device)
                output = self.model(data)
                loss = self.val_criterion(output, label)
                self.writer.set_step((epoch - 1) * len(self.valid_data_loader) + batch_idx, 'valid')
                self._update_metrics(self.valid_metrics, loss, output, label, true_label)
        return self.valid_metrics.result()

    def _update_metrics(self, metrics, loss, output, label, true_label):
        metrics.update('loss', loss.item())
        metrics.update('true_acc', (output.argmax(dim=1) == true_label).float().mean().item())
        for met in self.metric_ftns:
            metrics.update(met.__name__, met(output, label))
