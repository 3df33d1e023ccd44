"""Training two models against each other: a GAN as an example, which differs from Trainer only in its step."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from base import Microbatch
from speed import clip_gradients
from trainer.trainer import Trainer


class GanTrainer(Trainer):
    """Trains `generator` and `discriminator`, each with the optimizer of the same name.

    Goodfellow et al. 2014, "Generative Adversarial Nets", with the non-saturating loss of the generator. The metrics
    are those of the discriminator, which gets as many generated images as real ones: targets 0 and 1.
    """

    LOSSES: ClassVar[tuple[str, ...]] = ("loss", "discriminator_loss", "generator_loss")
    LOOP_OPTIONS: ClassVar[frozenset[str]] = Trainer.LOOP_OPTIONS - {"grad_accum_steps"}
    model: Any  # Models: both by name

    def _train_step(self, microbatches: list[Microbatch]) -> tuple[Tensor, Tensor]:
        """Update the discriminator, then the generator; return the sum of their losses and the gradients' norm."""
        [((images, _), num_samples)] = microbatches
        generator, discriminator = self.model["generator"], self.model["discriminator"]
        noise = torch.randn(num_samples, generator.noise_size, device=self.device)
        with self.autocast:
            generated = generator(noise)
            logits = discriminator(torch.cat([images, generated.detach()]))  # (2 N,)
            targets = (torch.arange(2 * num_samples, device=self.device) < num_samples).to(logits.dtype)
            discriminator_loss = self.criterion(logits, targets)
        discriminator_norm = self._update("discriminator", discriminator_loss)
        with self.autocast:
            generator_loss = self.criterion(discriminator(generated), targets[:num_samples])
        generator_norm = self._update("generator", generator_loss)
        self.scaler.update()
        self.ema.update()
        loss = (discriminator_loss + generator_loss).detach()
        for name, value in zip(self.LOSSES, (loss, discriminator_loss, generator_loss), strict=True):
            self.train_metrics.update(name, value, n=num_samples)
        self.train_metrics.update_metrics(logits, targets, n=num_samples)
        return loss, torch.hypot(discriminator_norm, generator_norm)

    def _update(self, name: str, loss: Tensor) -> Tensor:
        """Make a step of the optimizer `name` on `loss`; return the gradient's norm before clipping."""
        optimizer = self.optimizer[name]
        optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(optimizer)
        norm = clip_gradients(self.model[name].parameters(), self.max_grad_norm)
        self.scaler.step(optimizer)
        return norm
