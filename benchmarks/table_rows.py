"""Time and memory of a row with categories and gaps, against a row of plain numbers; in a process of its own each."""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from csv_read import COLUMNS, peak_memory
from csv_scaling import write
from report import Section, Target, table

NUM_ROWS, LABELS = 1_000_000, (5, 50, 1000)
MIXED = {f"c{count}": "category" for count in LABELS} | dict.fromkeys(COLUMNS[len(LABELS) :], "number")
TEXT = f"""\
{NUM_ROWS:,} rows of {len(COLUMNS)} columns, CSV, with a validation split; nothing is kept for the next run. Plain: all
are numbers. Mixed: {len(LABELS)} are categories, of {", ".join(map(str, LABELS))} labels, and of the other features
every twentieth value is missing. Each time in a new process, in turns. Memory is the peak above that of the imports."""


def part(options: argparse.Namespace) -> Section:
    """Read both files in turns."""
    plain, mixed = options.out / "plain.csv", options.out / "mixed.csv"
    write(plain, NUM_ROWS)
    write_mixed(mixed, NUM_ROWS)
    contenders = {"plain, CsvDataLoader": plain, "plain, TableDataLoader": plain, "mixed, TableDataLoader": mixed}
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    for _ in range(options.rounds):
        for name, path in contenders.items():
            command = [str(options.python), __file__, name, str(path)]
            runs[name].append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
    medians = {
        name: {unit: statistics.median(run[unit] for run in found) for unit in ("seconds", "megabytes")}
        for name, found in runs.items()
    }
    *others, last = medians
    targets = [
        Target(f"{last} / {other}, {unit} a row", medians[last][unit] / medians[other][unit], 1.5)
        for other in others
        for unit in ("seconds", "megabytes")
    ]
    rows = [[name, f"{found['seconds']:.2f}", f"{found['megabytes']:,.0f}"] for name, found in medians.items()]
    return Section("Rows of any kind", f"{TEXT}\n\n{table(['', 'median, s', 'MB'], rows)}", targets)


def write_mixed(path: Path, num_rows: int) -> None:
    """Write a file of categories and numbers with gaps: the same 10,000 rows over and over."""
    draw = random.Random(0)
    rows = []
    for _ in range(10_000):
        labels = [f"label {draw.randrange(count)}" for count in LABELS]
        numbers = [f"{draw.gauss(0, 1):.6f}" for _ in range(len(MIXED) - len(LABELS))]
        numbers[:-1] = [number if draw.random() > 0.05 else "" for number in numbers[:-1]]  # not the target
        rows.append(",".join([*labels, *numbers]) + "\n")
    path.write_text(",".join(MIXED) + "\n" + "".join(rows) * (num_rows // len(rows)))


def read(contender: str, path: Path) -> dict[str, float]:
    """Read the file; return the seconds, and the megabytes of the peak above that of the imports."""
    from data_loader.csv_data import CsvDataLoader
    from data_loader.table_data import TableDataLoader

    before = peak_memory()
    started = time.perf_counter()
    if contender == "plain, CsvDataLoader":
        CsvDataLoader(str(path), COLUMNS[-1], 128, validation_split=0.1, cache=False)
    else:
        columns: Any = MIXED if contender.startswith("mixed") else dict.fromkeys(COLUMNS, "number")
        TableDataLoader(str(path), COLUMNS[-1], 128, columns=columns, missing="mean", validation_split=0.1, cache=False)
    return {"seconds": time.perf_counter() - started, "megabytes": (peak_memory() - before) / 1e6}


if __name__ == "__main__":
    print(json.dumps(read(sys.argv[1], Path(sys.argv[2]))))
