"""The keys of the config's `trainer` section that are yours; read them as `self.options.KEY` in the trainer."""

from __future__ import annotations

import parse_config


class TrainerOptions(parse_config.TrainerOptions):
    """The engine's keys and yours, as in `mixup: float = Field(default=0.0, ge=0, description="strength of mixup")`."""
