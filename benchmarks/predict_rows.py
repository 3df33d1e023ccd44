"""Time of predict.py on 10^6 rows, against a loop that is written by hand for the same files and model."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import torch

from csv_read import COLUMNS
from csv_scaling import write
from report import Section, Target, ratio, table

ROOT = Path(__file__).resolve().parent.parent
NUM_ROWS, BATCH_SIZE = 1_000_000, 512
CONFIG = {
    "name": "Prediction",
    "n_gpu": 0,
    "arch": {"type": "MLP", "args": {"in_features": len(COLUMNS) - 1, "hidden": [64, 64]}},
    "data_loader": {"type": "CsvDataLoader", "args": {"target": COLUMNS[-1], "batch_size": BATCH_SIZE}},
    "optimizer": {"type": "Adam"},
    "loss": "mse_loss",
    "trainer": {"epochs": 1},
}
TEXT = f"""\
{NUM_ROWS:,} rows of {len(COLUMNS)} numbers, CSV to CSV, batches of {BATCH_SIZE}, an MLP with two hidden layers of 64: a
prediction and one kept column a row. The other loop is written by hand with pyarrow's streaming reader and writer, for
this file and model alone: it checks nothing, and writes the same rows. In turns in one process."""


def part(options: argparse.Namespace) -> Section:
    """Let both predict for the same file in turns."""
    path, out = options.out / "rows.csv", options.out / "predictions.csv"
    write(path, NUM_ROWS)
    run = _train(path, options)
    contenders: dict[str, Callable[[Path, Path, Path], None]] = {"written by hand": by_hand, "predict.py": by_script}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(options.rounds + 1):
        for name, contender in contenders.items():
            started = time.perf_counter()
            contender(run, path, out)
            seconds[name].append(time.perf_counter() - started)
        print(f"  {', '.join(f'{name} {values[-1]:.2f} s' for name, values in seconds.items())}", flush=True)
    counted = {name: values[1:] for name, values in seconds.items()}  # the first warms up
    rows = [[name, f"{statistics.median(values):.2f}"] for name, values in counted.items()]
    target = Target(
        "speed of predict.py / written by hand, 10^6 rows",
        ratio(counted["written by hand"], counted["predict.py"]),
        0.8,
        at_least=True,
    )
    return Section("Predicting", f"{TEXT}\n\n{table(['', 'median, s'], rows)}", [target])


def by_script(run: Path, path: Path, out: Path) -> None:
    """Predict as the command line does."""
    import predict

    args = ["-r", str(run), "--input", str(path), "--output", str(out), "--id", COLUMNS[0]]
    with redirect_stdout(StringIO()):
        assert predict.main(predict.parse_args(args)) == 0


@torch.inference_mode()
def by_hand(run: Path, path: Path, out: Path) -> None:
    """Predict as one would write it for this file and model alone."""
    from predict import load_model

    model = load_model(run)
    kept, *others, _ = COLUMNS  # the kept one is a feature too, and written as it is
    types = {kept: pa.string()} | dict.fromkeys(others, pa.float32())
    schema = pa.schema([(kept, pa.string()), ("y", pa.float32())])
    options = pa_csv.ConvertOptions(include_columns=list(types), column_types=types)
    with pa_csv.CSVWriter(out, schema) as writer:
        for block in pa_csv.open_csv(path, convert_options=options):
            columns = [block.column(name).cast(pa.float32()).to_numpy() for name in types]
            inputs = torch.from_numpy(np.stack(columns, axis=1))
            outputs = torch.cat([model(batch) for batch in inputs.split(BATCH_SIZE)])
            writer.write_batch(pa.record_batch([block.column(kept), pa.array(outputs[:, 0].numpy())], schema=schema))


def _train(path: Path, options: argparse.Namespace) -> Path:
    """Train an epoch on the first rows of the file; return the run directory."""
    with open(path) as file:
        (options.out / "few.csv").write_text("".join(line for line, _ in zip(file, range(1001))))
    config = json.loads(json.dumps(CONFIG))
    config["data_loader"]["args"]["path"] = str(options.out / "few.csv")
    config["trainer"]["save_dir"] = str(options.out)
    (options.out / "prediction.json").write_text(json.dumps(config))
    command = [str(options.python), "train.py", "-c", str(options.out / "prediction.json")]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return next((options.out / "Prediction").iterdir())
