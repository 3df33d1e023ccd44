"""The keys of the config's `trainer` section that are yours; read them as `self.options.KEY` in the trainer."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

import parse_config
from utils.annotations import HAS_STATE


class TrainerOptions(parse_config.TrainerOptions):
    """The engine's keys and yours, as in `mixup: float = Field(default=0.0, ge=0, description="strength of mixup")`."""

    type: Annotated[str | None, HAS_STATE] = Field(default=None, description="a class of trainer/; default: Trainer")
