"""Finding a learning rate: a range test with the real step (Smith, Cyclical Learning Rates, 2017). Nothing is kept."""

from __future__ import annotations

import math
from itertools import count
from pathlib import Path
from typing import Any

import torch

from base.base_model import take_weights
from distributed import world_size
from preflight.trial import state_put_back
from utils import ConfigError
from utils.errors import writing_to
from utils.files import write_json

LOW, HIGH, NUM_STEPS = 1e-7, 10.0, 100
SMOOTHING = 0.9  # of the losses, as an exponential mean
DIVERGED, WORSE = 4.0, 1.25  # times the lowest smoothed loss, and the first one: above either, the test ends
FIRST_STEPS = 10  # whose smoothed losses say little
ROWS, BAR_WIDTH = 20, 50  # of the plot in text


def find_lr(trainer: Any) -> list[str]:
    """Train with a learning rate that grows from LOW to HIGH; return a plot in lines of text, and a suggestion.

    `trainer` is a Trainer; its `_train_step` makes the steps, with its accumulation, precision and clipping. Afterwards
    weights, optimizer and random state are as before. `lr_find.json` and, where matplotlib is installed, `lr_find.png`
    are written beside the runs. The suggestion is where the smoothed loss falls most steeply over log(lr). Raises
    ConfigError where the trainer or the run is of another kind, RunDirError where the files cannot be written.
    """
    take_weights(trainer.model, trainer.config)
    trainer.loop.attach()
    if not (trainer.loop.is_followed and hasattr(trainer, "_train_step")) or world_size() > 1:
        raise ConfigError("--lr-find: needs one process, and a trainer whose epoch calls _train_step as Trainer's does")
    if isinstance(trainer.optimizer, dict):
        raise ConfigError(f"--lr-find: is for one optimizer; there are {', '.join(trainer.optimizer)}")
    if trainer.config.resume:
        raise ConfigError("--lr-find: is for a new run; give -c, and with it -r for the weights to start from")
    trainer._preflight()
    with state_put_back(trainer):
        rates, losses = _range_test(trainer)
    smoothed = _smoothed(losses)
    suggestion = _steepest(rates, smoothed)
    folder = trainer.config.save_dir.parent
    values = {"lr": rates, "loss": losses, "smoothed_loss": smoothed, "suggestion": suggestion}
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(values, folder / "lr_find.json")
        written = _write_plot(folder / "lr_find.png", rates, smoothed, suggestion)
    return [*_text_plot(rates, smoothed), *_conclusion(rates, smoothed, suggestion), f"values: {written}"]


def _range_test(trainer: Any) -> tuple[list[float], list[float]]:
    """Make steps, each with a larger learning rate, until one diverges; return rates and losses."""
    groups = trainer.optimizer.param_groups
    shares = [float(group["lr"]) / float(groups[0]["lr"]) for group in groups]  # groups keep their proportions
    steps = (step for epoch in count(1) for step in trainer._on_device(trainer._steps(epoch)))
    trainer.model.train()
    rates: list[float] = []
    losses: list[float] = []
    for i, microbatches in zip(range(NUM_STEPS), steps):
        rate = LOW * (HIGH / LOW) ** (i / (NUM_STEPS - 1))
        for group, share in zip(groups, shares):
            is_tensor = isinstance(group["lr"], torch.Tensor)
            group["lr"] = torch.full_like(group["lr"], rate * share) if is_tensor else rate * share
        loss, _ = trainer._train_step(microbatches)
        value = float(loss)
        if not math.isfinite(value):
            break
        rates.append(rate)
        losses.append(value)
        smoothed = _smoothed(losses)
        if i >= FIRST_STEPS and smoothed[-1] > min(DIVERGED * min(smoothed), WORSE * smoothed[0]):
            break
    return rates, losses


def _smoothed(losses: list[float]) -> list[float]:
    """Return exponential means, corrected for their beginning as Adam's are."""
    mean, smoothed = 0.0, []
    for i, loss in enumerate(losses, 1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        smoothed.append(mean / (1 - SMOOTHING**i))
    return smoothed


def _steepest(rates: list[float], smoothed: list[float]) -> float | None:
    """Return the rate at which the loss falls most steeply per factor in the rate, on its way to the lowest value."""
    last = smoothed.index(min(smoothed)) if smoothed else 0
    slopes = [(smoothed[i + 1] - smoothed[i - 1], rates[i]) for i in range(FIRST_STEPS, last)]
    slope, rate = min(slopes, default=(0.0, 0.0))
    return rate if slope < 0 else None


def _conclusion(rates: list[float], smoothed: list[float], suggestion: float | None) -> list[str]:
    ended = "no step was finite" if not rates else f"ended at lr {rates[-1]:.2g} after {len(rates)} steps"
    if suggestion is None:
        return [f"no suggestion: the loss never fell; {ended}"]
    lowest = rates[smoothed.index(min(smoothed))]
    return [
        f"suggestion: lr {suggestion:.2g}, where the smoothed loss falls most steeply",
        f"the loss is lowest at lr {lowest:.2g}; {ended}",
        f"try it: --set optimizer.args.lr={suggestion:.2g}",
    ]


def _text_plot(rates: list[float], smoothed: list[float]) -> list[str]:
    """Return a line per few steps, with a bar as long as the smoothed loss."""
    if not rates:
        return []
    top = min(max(smoothed), 2 * smoothed[0])
    lines = ["      lr      loss"]
    for i in range(0, len(rates), math.ceil(len(rates) / ROWS)):
        bar = "#" * round(BAR_WIDTH * min(1.0, max(0.0, smoothed[i] / top))) if top > 0 else ""
        lines.append(f"{rates[i]:8.1e}  {smoothed[i]:8.4g}  {bar}".rstrip())
    return lines


def _write_plot(path: Path, rates: list[float], smoothed: list[float], suggestion: float | None) -> str:
    """Write a picture where matplotlib is installed; return where values and picture are."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return f"{path.with_suffix('.json')}; for a picture: pip install matplotlib"
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(rates, smoothed)
    axes.set(xscale="log", xlabel="learning rate", ylabel="smoothed training loss")
    if smoothed:
        low, high = min(smoothed), smoothed[0]
        axes.set_ylim(low - 0.1 * (high - low) - 1e-9, high + 0.3 * (high - low) + 1e-9)
    if suggestion is not None:
        axes.axvline(suggestion, color="tab:red", linestyle="--", label=f"steepest descent: {suggestion:.2g}")
        axes.legend()
    figure.savefig(path, dpi=150)
    return f"{path.with_suffix('.json')}, {path.name}"
