"""What a part of the benchmark hands back, and the document and chart that are made of all parts."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import torch

LIBRARIES = ("torch", "torchvision", "torchmetrics", "lightning", "accelerate", "pytorch-ignite", "pandas", "pyarrow")


@dataclass(frozen=True)
class Target:
    """A ratio that is to be at most (or, with `at_least`, at least) `bound`."""

    name: str
    measured: float
    bound: float
    at_least: bool = False

    @property
    def is_met(self) -> bool:
        """Whether the measured ratio is within the bound, as it is printed."""
        measured = round(self.measured, 2)
        return measured >= self.bound if self.at_least else measured <= self.bound


@dataclass(frozen=True)
class Section:
    """One part's results: Markdown, targets, and for the chart the seconds of each epoch by contender."""

    title: str
    text: str
    targets: list[Target] = field(default_factory=list)
    bars: Mapping[str, Sequence[float]] = field(default_factory=dict)


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def ratio(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the median of the ratios of two contenders' times, round by round."""
    return statistics.median(a / b for a, b in zip(one, other))


def document(sections: Sequence[Section], rounds: int) -> str:
    """Return BENCHMARKS.md."""
    targets = [target for section in sections for target in section.targets]
    rows = [
        [
            t.name,
            f"{t.measured:.2f}",
            f"{'≥' if t.at_least else '≤'} {t.bound:.2f}",
            "met" if t.is_met else "**missed**",
        ]
        for t in targets
    ]
    parts = [
        "<!-- Written by `make bench`, wholly: change benchmarks/ instead. -->\n# Benchmarks",
        f"Measured by `make bench` ({rounds} rounds) in one go. {machine()}",
        f"## Targets\n\n{table(['ratio', 'measured', 'target', ''], rows)}",
        *(f"## {section.title}\n\n{section.text}" for section in sections),
    ]
    return "\n\n".join(parts) + "\n"


def machine() -> str:
    """Return what the figures were measured on."""
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    gpu = f"GPU: {torch.cuda.get_device_name()}." if torch.cuda.is_available() else "No GPU was at hand."
    return (
        f"{os.cpu_count()} CPUs ({platform.machine()}, {platform.system()}), {torch.get_num_threads()} threads, "
        f"Python {platform.python_version()}, {libraries}. {gpu}"
    )


def draw(bars: Mapping[str, Sequence[float]], path: Path) -> None:
    """Draw the median of each contender, and a line from its fastest to its slowest epoch, to a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    names = sorted(bars, key=lambda name: -statistics.median(bars[name]))
    medians = [statistics.median(bars[name]) for name in names]
    whiskers = [
        [median - min(bars[name]) for name, median in zip(names, medians)],
        [max(bars[name]) - median for name, median in zip(names, medians)],
    ]
    figure, axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
    colors = ["tab:orange" if name.startswith("This project") else "tab:gray" for name in names]
    drawn = axes.barh(names, medians, xerr=whiskers, color=colors, ecolor="black", error_kw={"elinewidth": 1})
    axes.bar_label(drawn, [f" {median:.2f} s" for median in medians], label_type="center", color="white")
    axes.set_xlabel("seconds per epoch of MNIST, batch 128 (lower is better)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
