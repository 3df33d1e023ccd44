"""Time and memory of reading a CSV file into a tensor, against its rows: this project's reader and pandas."""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np

from csv_read import COLUMNS, READERS
from report import Section, Target, table

NUM_ROWS = (10_000, 100_000, 1_000_000, 10_000_000)
REPEATS = 3
TEXT = f"""\
Numbers in {len(COLUMNS)} columns, read into float32 by `CsvDataLoader`, with a validation split, and by pandas with
`torch.from_numpy(pandas.read_csv(path).to_numpy("float32", copy=True))`. Each time in a new process, the two in turns;
medians of {REPEATS}. The second run, up to its first batch, opens what the first kept of a file over 50 MB. Memory is
the peak above that of `import torch`, so it holds the reader's own import too."""


def part(options: argparse.Namespace) -> Section:
    """Read files of growing length."""
    rows, per_row, targets = [], [], []
    # pyarrow imports pandas wherever that is installed: 0.25 s and 40 MB that users of this project do not pay.
    pythons = dict(zip(READERS, (options.python, options.python, Path(sys.executable))))
    for num_rows in NUM_ROWS:
        path = options.out / "rows.csv"
        write(path, num_rows)
        runs = []
        for _ in range(REPEATS):
            shutil.rmtree(path.parent / "cache", ignore_errors=True)
            runs.append([read_in_process(reader, python, path) for reader, python in pythons.items()])
        seconds, megabytes = (
            [statistics.median(run[index][unit] for run in runs) for index in range(len(READERS))]
            for unit in ("seconds", "megabytes")
        )
        per_row.append(seconds[0] / num_rows)
        tensor = num_rows * len(COLUMNS) * 4 / 1e6
        rows.append([f"{num_rows:,}", *(f"{s:.3f}" for s in seconds), *(f"{m:,.0f}" for m in [*megabytes, tensor])])
        print(f"  {num_rows:,} rows: {seconds} s, {megabytes} MB", flush=True)
        path.unlink()
    targets.append(Target("pandas / CsvDataLoader, seconds for 10^7 rows", seconds[2] / seconds[0], 3, at_least=True))
    targets.append(Target("pandas / its second run, to the first batch", seconds[2] / seconds[1], 8, at_least=True))
    targets.append(Target("the second run, MB for 10^7 rows / 200", megabytes[1] / 200, 1))
    targets.append(Target("CsvDataLoader, MB for 10^7 rows / 700", megabytes[0] / 700, 1))
    targets.append(Target("CsvDataLoader, seconds a row, 10^7 rows / 10^5", per_row[-1] / per_row[1], 1.1))
    header = ["rows", *(f"{r}, s" for r in READERS), *(f"{r}, MB" for r in READERS), "the tensor, MB"]
    return Section("Reading CSV", f"{TEXT}\n\n{table(header, rows)}", targets)


def write(path: Path, num_rows: int) -> None:
    """Write a file of normal numbers: the same 10,000 rows over and over."""
    values = np.random.default_rng(0).normal(size=(10_000, len(COLUMNS))).tolist()
    block = "".join(",".join(f"{value:.6f}" for value in row) + "\n" for row in values)
    with open(path, "w", encoding="utf-8") as file:
        file.write(",".join(COLUMNS) + "\n")
        for _ in range(num_rows // len(values)):
            file.write(block)


def read_in_process(reader: str, python: Path, path: Path) -> dict[str, float]:
    """Return seconds and megabytes of reading the file in a new process."""
    command = [str(python), str(Path(__file__).with_name("csv_read.py")), reader, str(path)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
