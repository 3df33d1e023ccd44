import numpy as np
import torch
from torchvision.utils import make_grid
from base import BaseTrainer
from utils import inf_loop, MetricTracker, write_json


class Trainer(BaseTrainer):
    """
    Trainer for batches that are dicts of tensors and lists of strings
    """
    def __init__(self, model, criterion, metric_ftns, optimizer, config, device,
                 data_loader, valid_data_loader=None, lr_scheduler=None, len_epoch=None):
        super().__init__(model, criterion, metric_ftns, optimizer, config)
        self.config = config
        self.device = device
        self.data_loader = data_loader
        self.answers = data_loader.answers
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

        self.train_metrics = MetricTracker('loss', *[m.__name__ for m in self.metric_ftns], writer=self.writer)
        self.valid_metrics = MetricTracker('loss', *[m.__name__ for m in self.metric_ftns], writer=self.writer)

    def _to_device(self, batch):
        return {k: v.to(self.device) if torch.is_tensor(v) else v for k, v in batch.items()}

    def _train_epoch(self, epoch):
        self.model.train()
        self.train_metrics.reset()
        for batch_idx, batch in enumerate(self.data_loader):
            batch = self._to_device(batch)

            self.optimizer.zero_grad()
            output = self.model(batch)
            loss = self.criterion(output, batch['answer'])
            loss.backward()
            self.optimizer.step()

            self.writer.set_step((epoch - 1) * self.len_epoch + batch_idx)
            self.train_metrics.update('loss', loss.item())
            for met in self.metric_ftns:
                self.train_metrics.update(met.__name__, met(output, batch['answer']))

            if batch_idx % self.log_step == 0:
                self.logger.debug('Train Epoch: {} {} Loss: {:.6f}'.format(
                    epoch, self._progress(batch_idx), loss.item()))
                self.writer.add_image('input', make_grid(batch['image'].cpu(), nrow=8, normalize=True))

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
        predictions = []
        with torch.no_grad():
            for batch_idx, batch in enumerate(self.valid_data_loader):
                batch = self._to_device(batch)

                output = self.model(batch)
                loss = self.criterion(output, batch['answer'])

                self.writer.set_step((epoch - 1) * len(self.valid_data_loader) + batch_idx, 'valid')
                self.valid_metrics.update('loss', loss.item())
                for met in self.metric_ftns:
                    self.valid_metrics.update(met.__name__, met(output, batch['answer']))

                for i, pred in enumerate(output.argmax(dim=1).tolist()):
                    predictions.append({
                        'image_id': batch['image_id'][i],
                        'question': batch['question_text'][i],
                        'answer': batch['answer_text'][i],
                        'predicted': self.answers[pred]
                    })

        write_json(predictions, self.config.save_dir / 'val_predictions.json')
        self.writer.add_text('sample', '{question}? {predicted} ({answer})'.format(**predictions[0]))
        for name, p in self.model.named_parameters():
            self.writer.add_histogram(name, p, bins='auto')
        return self.valid_metrics.result()

    def _progress(self, batch_idx):
        if hasattr(self.data_loader, 'n_samples'):
            done, total = batch_idx * self.data_loader.batch_size, self.data_loader.n_samples
        else:
            done, total = batch_idx, self.len_epoch    # an endless loader knows no n_samples
        return '[{}/{} ({:.0f}%)]'.format(done, total, 100.0 * done / total)
