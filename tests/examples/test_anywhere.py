"""A run trains, stops and resumes where there is no POSIX, as on Windows, with workers that are spawned."""

from __future__ import annotations

from pathlib import Path

from helpers import newest
from test_portability import run_without_posix

TRAIN = """
import train
from utils import exit_on_user_error

ARGS = ["--set", "data_loader.args.source=digits", "--set", "trainer.save_dir={save_dir}", "--set", "n_gpu=0"]
ARGS += ["--set", "data_loader.args.validation_split=0.9"]

WORKER = "data_loader.args.num_workers=1"

if __name__ == "__main__":
    with exit_on_user_error():
        train.main(train.parse_args(["-c", "config.json", "--set", "trainer.epochs=1", "--set", WORKER, *ARGS]))
        train.main(train.parse_args(["-c", "config.json", "--set", "trainer.epochs=2", "--resume-latest", *ARGS]))
"""


def test_a_run_trains_and_resumes_without_posix(tmp_path: Path) -> None:
    result = run_without_posix(TRAIN.format(save_dir=(tmp_path / "saved").as_posix()))
    assert result.returncode == 0, result.stderr
    (run_dir,) = (tmp_path / "saved").glob("*/*")
    assert newest(run_dir)["position"] == {"epoch": 3, "step_in_epoch": 0, "global_step": 6}
