"""TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter


class TensorboardWriter:
    """A SummaryWriter that knows the step; disabled, every call does nothing."""

    def __init__(self, log_dir: str | Path, logger: Any = None, enabled: bool = True) -> None:
        """`logger` is accepted for the published template's sake."""
        self.writer = SummaryWriter(str(log_dir)) if enabled else None
        self.step = 0
        self.mode = ""

    def set_step(self, step: int, mode: str = "") -> None:
        """Let the following calls speak of `step`; a `mode`, such as "valid", ends their tags."""
        self.step, self.mode = step, mode

    def add_scalar(self, tag: str, value: float) -> None:
        """Add a point to a curve."""
        if self.writer:
            self.writer.add_scalar(self._tag(tag), value, self.step)

    def add_images(self, tag: str, images: Tensor) -> None:
        """Add a grid of images, (N, 1 or 3, H, W) float in [0, 1]."""
        if self.writer:
            self.writer.add_images(self._tag(tag), images, self.step)

    def add_histogram(self, tag: str, values: Tensor) -> None:
        """Add the distribution of `values`, of any shape."""
        if self.writer:
            self.writer.add_histogram(self._tag(tag), values, self.step)

    def add_text(self, tag: str, text: str) -> None:
        """Add a Markdown text."""
        if self.writer:
            self.writer.add_text(self._tag(tag), text, self.step)

    def add_figure(self, tag: str, figure: Any) -> None:
        """Add a matplotlib figure."""
        if self.writer:
            self.writer.add_figure(self._tag(tag), figure, self.step)

    def flush(self) -> None:
        """Hand what is queued to the operating system."""
        if self.writer:
            self.writer.flush()

    def close(self) -> None:
        """Flush and close."""
        if self.writer:
            self.writer.close()

    def _tag(self, tag: str) -> str:
        return f"{tag}/{self.mode}" if self.mode else tag
