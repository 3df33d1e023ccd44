import numpy as np
import torch
from torchvision.utils import make_grid
from base import BaseTrainer
from utils import MetricTracker


class GANTrainer(BaseTrainer):
    """
    Trains a generator against a discriminator, a step each per batch.
    For BaseTrainer the model is the generator, the optimizer that of the generator.
    """
    def __init__(self, generator, discriminator, criterion, metric_ftns, optimizer_G, optimizer_D, config, device,
                 data_loader):
        # BaseTrainer resumes in its constructor, so these have to be here before
        self.device = device
        self.generator, self.discriminator = generator, discriminator
        self.optimizer_G, self.optimizer_D = optimizer_G, optimizer_D
        self.fixed_noise = torch.randn(32, generator.latent_dim, device=device)
        super().__init__(generator, criterion, metric_ftns, optimizer_G, config)
        self.data_loader = data_loader
        self.len_epoch = len(data_loader)
        self.log_step = int(np.sqrt(data_loader.batch_size))
        self.train_metrics = MetricTracker('loss_G', 'loss_D', 'D_real', 'D_fake',
                                           *[m.__name__ for m in self.metric_ftns], writer=self.writer)

    def _train_epoch(self, epoch):
        self.generator.train()
        self.discriminator.train()
        self.train_metrics.reset()
        for batch_idx, (real,) in enumerate(self.data_loader):
            real = real.to(self.device)
            noise = torch.randn(real.size(0), self.generator.latent_dim, device=self.device)
            fake = self.generator(noise)

            # discriminator
            self.optimizer_D.zero_grad()
            output_real = self.discriminator(real)
            output_fake = self.discriminator(fake.detach())
            loss_D = (self.criterion(output_real, True) + self.criterion(output_fake, False)) / 2
            loss_D.backward()
            self.optimizer_D.step()

            # generator
            self.optimizer_G.zero_grad()
            loss_G = self.criterion(self.discriminator(fake), True)
            loss_G.backward()
            self.optimizer_G.step()

            self.writer.set_step((epoch - 1) * self.len_epoch + batch_idx)
            self.train_metrics.update('loss_G', loss_G.item())
            self.train_metrics.update('loss_D', loss_D.item())
            self.train_metrics.update('D_real', torch.sigmoid(output_real).mean().item())
            self.train_metrics.update('D_fake', torch.sigmoid(output_fake).mean().item())
            for met in self.metric_ftns:
                self.train_metrics.update(met.__name__, met(fake, real))

            if batch_idx % self.log_step == 0:
                self.logger.debug('Train Epoch: {} [{}/{}] Loss_D: {:.4f} Loss_G: {:.4f}'.format(
                    epoch, batch_idx, self.len_epoch, loss_D.item(), loss_G.item()))

        self.generator.eval()
        with torch.no_grad():
            samples = self.generator(self.fixed_noise)
        self.writer.add_image('generated', make_grid(samples.cpu(), nrow=8, normalize=True))
        return self.train_metrics.result()

    def _save_checkpoint(self, epoch, save_best=False):
        state = {
            'epoch': epoch,
            'generator': self.generator.state_dict(),
            'discriminator': self.discriminator.state_dict(),
            'optimizer_G': self.optimizer_G.state_dict(),
            'optimizer_D': self.optimizer_D.state_dict(),
            'fixed_noise': self.fixed_noise,
            'monitor_best': self.mnt_best
        }
        filename = str(self.checkpoint_dir / 'checkpoint-epoch{}.pth'.format(epoch))
        torch.save(state, filename)
        self.logger.info('Saving checkpoint: {} ...'.format(filename))
        if save_best:
            torch.save(state, str(self.checkpoint_dir / 'model_best.pth'))

    def _resume_checkpoint(self, resume_path):
        self.logger.info('Loading checkpoint: {} ...'.format(resume_path))
        checkpoint = torch.load(str(resume_path), map_location=self.device)
        self.start_epoch = checkpoint['epoch'] + 1
        self.mnt_best = checkpoint['monitor_best']
        self.generator.load_state_dict(checkpoint['generator'])
        self.discriminator.load_state_dict(checkpoint['discriminator'])
        self.optimizer_G.load_state_dict(checkpoint['optimizer_G'])
        self.optimizer_D.load_state_dict(checkpoint['optimizer_D'])
        self.fixed_noise = checkpoint['fixed_noise']
