"""Write known tables as CSV: those that come with scikit-learn, and a synthetic one with columns of every kind."""

from __future__ import annotations

import argparse
import csv
import random
from collections.abc import Callable, Iterable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

Rows = tuple[list[str], Iterable[list[object]]]  # the names of the columns, and the rows
NUM_MADE_ROWS = 3000
CITIES = {"Bonn": 1.0, "Hof": 0.7, "Köln": 1.4, "Ulm": 1.1}  # the rent there, beside that in Bonn


def _sklearn(name: str, targets: list[str]) -> Rows:
    """Return a table of scikit-learn's; a class is written as its label."""
    from sklearn import datasets

    found: Any = getattr(datasets, f"load_{name}")(**({"scaled": False} if name == "diabetes" else {}))
    labels: Any = getattr(found, "target_names", None) if len(targets) == 1 else None
    names = [str(column).replace(" (cm)", "").replace(" ", "_") for column in found.feature_names]
    rows = []
    for features, target in zip(found.data.tolist(), found.target.tolist()):
        values = target if isinstance(target, list) else [target if labels is None else str(labels[target])]
        rows.append([*features, *values])
    return [*names, *targets], rows


def make_rows(seed: int = 0) -> Rows:
    """Return flats with text, gaps, dates, rare labels and groups, and rents, which are products."""
    generator = random.Random(seed)
    rows: list[list[object]] = []
    for i in range(NUM_MADE_ROWS):
        area = generator.uniform(15, 150)
        rare = generator.random() < 0.01
        city = f"Village {generator.randrange(20)}" if rare else generator.choice([*CITIES])
        day = date(2015, 1, 1) + timedelta(days=generator.randrange(3600))
        balcony = generator.random() < 0.4
        year = generator.randrange(1900, 2015)
        rent = 30 * area**0.8 * CITIES.get(city, 0.6) * 1.1**balcony * 1.04 ** (day.year - 2015) * (year / 1950) ** 5
        row: list[object] = [f"flat {i}", f"owner {i // 4}", f"{area:.1f}", city, day.strftime("%d.%m.%Y")]
        row += ["yes" if balcony else "no", year, f"{rent * generator.gauss(1, 0.03):.2f}"]
        for at, missing in ((2, "?"), (3, ""), (6, "NA")):
            row[at] = missing if generator.random() < 0.05 else row[at]
        rows.append(row)
    return ["flat", "owner", "area", "city", "from", "balcony", "built", "rent"], rows


TABLES: dict[str, Callable[[], Rows]] = {
    # Efron, Hastie, Johnstone, Tibshirani 2004, "Least Angle Regression"; in the units in which it was measured.
    "diabetes": lambda: _sklearn("diabetes", ["progression"]),
    # Wolberg, Street, Mangasarian 1995: Breast Cancer Wisconsin (Diagnostic), UCI.
    "breast_cancer": lambda: _sklearn("breast_cancer", ["diagnosis"]),
    # Fisher 1936, "The use of multiple measurements in taxonomic problems"; UCI.
    "iris": lambda: _sklearn("iris", ["species"]),
    # Forina et al. 1991, PARVUS: Wine, UCI.
    "wine": lambda: _sklearn("wine", ["cultivar"]),
    # Tenenhaus 1998, "La régression PLS": 20 men, three exercises and three measures of the body.
    "linnerud": lambda: _sklearn("linnerud", ["weight", "waist", "pulse"]),
    "flats": make_rows,
}


def write_tables(folder: Path) -> None:
    """Write all tables to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in TABLES.items():
        header, rows = make()
        with open(folder / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(header)
            writer.writerows(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("data/tables"))
    folder = parser.parse_args().folder
    write_tables(folder)
    print(f"wrote {folder}/: {', '.join(TABLES)}")
