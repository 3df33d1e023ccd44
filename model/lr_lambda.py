"""Learning-rate schedules for LambdaLR: pure functions of the epoch or step that return a factor of the base rate."""

from __future__ import annotations

import math

from utils.annotations import NonNegativeInt, PositiveInt, Probability


def warmup_cosine(position: int, warmup: NonNegativeInt, total: PositiveInt, final: Probability = 0.0) -> float:
    """Rise linearly for `warmup` epochs or steps, then fall as a cosine to `final` at `total`.

    Loshchilov and Hutter 2017, "SGDR: Stochastic gradient descent with warm restarts", one period, after a warm-up as
    in Goyal et al. 2017. `position` counts from 0 in the scheduler's own interval; so do `warmup` and `total`.
    """
    if position < warmup:
        return (position + 1) / (warmup + 1)
    progress = min(1.0, (position - warmup) / max(1, total - warmup))
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))
