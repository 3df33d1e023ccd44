"""A run trains, resumes and is tested where there is no POSIX, as on Windows, with a worker that is spawned."""

from __future__ import annotations

from pathlib import Path

from helpers import newest
from test_portability import run_without_posix

# No validation: its loader would spawn a worker of its own, which takes seconds.
TRAIN = """
import test, train
from utils import exit_on_user_error

CHANGES = ["data_loader.args.source=mnist", "data_loader.args.data_dir={data_dir}", "trainer.save_dir={save_dir}"]
CHANGES += ["data_loader.args.validation_split=0", "n_gpu=0", "trainer.len_epoch=3", "trainer.monitor=off"]
CHANGES += ["data_loader.args.batch_size=32"]

def run(*changes):
    args = [arg for change in [*CHANGES, *changes] for arg in ("--set", change)]
    config = train.parse_args(["-c", "config.json", "--resume-latest", *args])
    train.main(config)
    return config.save_dir

if __name__ == "__main__":
    with exit_on_user_error():
        run("trainer.epochs=1", "data_loader.args.num_workers=1")
        run_dir = run("trainer.epochs=2")
        test.main(*test.parse_args(["-r", str(run_dir)]))
"""


def test_a_run_trains_and_resumes_without_posix(digits_dir: Path, tmp_path: Path) -> None:
    folders = {"save_dir": (tmp_path / "saved").as_posix(), "data_dir": digits_dir.as_posix()}
    result = run_without_posix(TRAIN.format(**folders))
    assert result.returncode == 0, result.stderr
    (run_dir,) = (tmp_path / "saved").glob("*/*")
    assert newest(run_dir)["position"] == {"epoch": 3, "step_in_epoch": 0, "global_step": 6}
    assert "accuracy: 0." in result.stdout
