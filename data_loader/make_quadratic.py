"""Make data_loader/quadratic.csv: y is a quadratic of x plus Gaussian noise, so that what is to be learned is known."""

from __future__ import annotations

import csv
import random
from pathlib import Path

COEFFICIENTS = (1.5, -2.0, 0.75)  # y = 1.5 - 2 x + 0.75 x^2
NOISE_VARIANCE = 0.25
NUM_ROWS = 5_000
PATH = Path(__file__).with_name("quadratic.csv")


def make_rows(seed: int = 0) -> list[tuple[str, str]]:
    """Return NUM_ROWS pairs (x, y) as text; x is uniform in [-3, 3]."""
    generator = random.Random(seed)
    rows = []
    for _ in range(NUM_ROWS):
        x = generator.uniform(-3, 3)
        y = sum(c * x**k for k, c in enumerate(COEFFICIENTS)) + generator.gauss(0, NOISE_VARIANCE**0.5)
        rows.append((f"{x:.6f}", f"{y:.6f}"))
    return rows


def write_csv(path: Path) -> None:
    """Write the file with its header x,y."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["x", "y"])
        writer.writerows(make_rows())


if __name__ == "__main__":
    write_csv(PATH)
