"""From the command line: every mistake is one clear line with its exit code, and leaves no run directory."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from example_runs import run_train
from few_digits import on_few_digits
from helpers import ROOT, epochs_of, run_script, write_given
from utils import exit_on_user_error

GOOD = ["-c", "config.json", "--set", "data_loader.args.source=digits"]

BAD_CONFIG = {
    "no config": ([], "no config: give -c config.json"),
    "missing file": (["-c", "nope.json"], "nope.json: cannot be read"),
    "unknown section": ([*GOOD, "--set", "optimzer.type=Adam"], "optimzer: unknown key; did you mean 'optimizer'?"),
    "unknown type": ([*GOOD, "--set", "arch.type=MnistModle"], "arch.type: unknown type 'MnistModle'; did you mean"),
    "unknown argument": ([*GOOD, "--set", "optimizer.args.lrr=1"], "optimizer.args.lrr: unknown argument of Adam"),
    "refused value": ([*GOOD, "--lr", "-1"], "Invalid learning rate: -1.0"),
    "unknown metric": ([*GOOD, "--set", "metrics.0=acuracy"], "metrics[0].type: unknown type 'acuracy'; did you mean"),
    "unknown monitor": ([*GOOD, "--set", "trainer.monitor=min val_los"], "did you mean 'val_loss'?"),
    "monitor without split": ([*GOOD, "--set", "data_loader.args.validation_split=0"], "no 'val_loss' in this run"),
    "unknown device": ([*GOOD, "-d", "gpu"], "device: 'gpu' is not allowed here; auto, cpu, mps, cuda or cuda:N"),
    "absent device": ([*GOOD, "-d", "cuda:99"], "'cuda:99' is not there"),
    "name that leaves": ([*GOOD, "--set", "name=../../x"], "name: '../../x' is not allowed here"),
    "unknown source": (["-c", "config.json", "--set", "data_loader.args.source=minst"], "did you mean 'mnist'?"),
}


@pytest.mark.parametrize("case", BAD_CONFIG)
def test_a_bad_config_exits_with_2(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args, expected = BAD_CONFIG[case]
    save_dir = tmp_path / "saved"
    assert_refused(2, [*args, "--set", f"trainer.save_dir={save_dir}"], expected, capsys)
    assert not save_dir.exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("{", "bad.json:1:2: not valid JSON"), ('{"a": NaN}', "NaN is not a number"), ("[]", "a config is an object")],
)
def test_a_malformed_config_exits_with_2(
    text: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.json").write_text(text)
    assert_refused(2, ["-c", str(tmp_path / "bad.json")], expected, capsys)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "cannot be read"),
        ("", "is empty"),
        ("x,y\n1,2\n3\n", "row 3: 1 columns, the header has 2"),
        ("x,y\n1,2\n3,four\n", "row 3, column 'y': 'four' is not a finite number"),
        ("x,z\n1,2\n", "has no column 'y'"),
    ],
)
def test_a_bad_csv_exits_with_3(
    text: str | None, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, save_dir = tmp_path / "bad.csv", tmp_path / "saved"
    if text is not None:
        path.write_text(text)
    overrides = ["--set", f"data_loader.args.path={path}", "--set", f"trainer.save_dir={save_dir}"]
    assert_refused(3, ["-c", "configs/csv_regression.json", *overrides], expected, capsys)
    assert not save_dir.exists()


def run_as_main(script: str, *args: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a script of the project as `python SCRIPT ARGS` does, in this process; return its exit code."""
    monkeypatch.setattr(sys, "argv", [script, *args])
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0


def test_a_mistake_is_one_line_without_traceback_and_no_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    save_dir = tmp_path / "saved"
    overrides = ["--set", "data_loader.args.source=mnist", "--set", f"data_loader.args.data_dir={tmp_path}/data"]
    args = ["-c", "config.json", *overrides, "--set", f"trainer.save_dir={save_dir}"]
    assert run_as_main("train.py", *args, monkeypatch=monkeypatch) == 3
    message = capsys.readouterr().err
    assert message.startswith("MNIST is not in")
    assert len(message.splitlines()) == 1
    assert not save_dir.exists()


class Started(NamedTuple):
    """A run of one epoch that was started from the command line, and the modules that its process imported."""

    run_dir: Path
    imported: set[str]


@pytest.fixture(scope="module")
def started(digits_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Started:
    """Start a run in a process of its own."""
    config = on_few_digits(json.loads((ROOT / "config.json").read_text()), digits_dir)
    config["trainer"]["save_dir"] = str(tmp_path_factory.mktemp("started"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPROFILEIMPORTTIME", "1")
        done = run_script("train.py", "-c", write_given(config), "--set", "trainer.epochs=1")
    assert done.returncode == 0, done.stderr
    (run_dir,) = Path(config["trainer"]["save_dir"]).glob("*/*")
    return Started(run_dir, {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()})


def test_a_run_resumes_and_is_tested_from_the_command_line(
    started: Started, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = started.run_dir
    assert run_as_main("train.py", "-r", str(run_dir), "--set", "trainer.epochs=2", monkeypatch=monkeypatch) == 0
    assert [record["epoch"] for record in epochs_of(run_dir)] == [1, 2]
    log = (run_dir / "info.log").read_text()
    assert "epoch 1/1" in log
    assert "epoch 2/2" in log
    assert run_as_main("test.py", "-r", str(run_dir), monkeypatch=monkeypatch) == 0
    assert "accuracy: 0." in capsys.readouterr().out


def test_a_run_imports_no_library_that_it_does_not_use(started: Started) -> None:
    assert "torch" in started.imported
    assert not started.imported & {"torchmetrics", "torchvision", "sklearn", "pyarrow", "scipy", "pandas"}


def assert_refused(exit_code: int, args: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Assert that train.py, in this process, says `expected` and exits with `exit_code`."""
    with pytest.raises(SystemExit) as caught, exit_on_user_error():
        run_train(*args)
    assert caught.value.code == exit_code
    message = capsys.readouterr().err
    assert expected in message
    assert len(message.strip().splitlines()) == 1
