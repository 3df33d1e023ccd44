"""docs/notebook.ipynb runs from an empty kernel, and what it stops, or a kernel that dies, goes on to the bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError

from example_runs import run_train
from helpers import ROOT, assert_equal, newest, records_of, status_of

NOTEBOOK = ROOT / "docs" / "notebook.ipynb"
SAVE_DIR = 'SAVE_DIR = "saved"'


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Jupyter write its own files where they go away."""
    for name in ("JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name))


def notebook(save_dir: Path) -> Any:
    """Return the notebook, without outputs, saving under `save_dir`."""
    content = nbformat.read(NOTEBOOK, as_version=4)
    [cell] = [cell for cell in content.cells if SAVE_DIR in cell.source]
    cell.source = cell.source.replace(SAVE_DIR, f'SAVE_DIR = "{save_dir.as_posix()}"')
    return content


def execute(content: Any) -> Any:
    """Run all cells in a fresh kernel; return the notebook with outputs."""
    resources = {"metadata": {"path": str(NOTEBOOK.parent)}}
    return NotebookClient(content, timeout=300, resources=resources).execute()


def outputs(content: Any, kind: str) -> list[Any]:
    """Return the outputs of all cells of a kind, such as "stream"."""
    found = [output for cell in content.cells for output in cell.get("outputs", [])]
    return [output for output in found if output.output_type == kind]


def never_stopped(save_dir: Path) -> Path:
    """Train as the notebook does, without a stop, in this process; return the run directory."""
    args = ["trainer.epochs=4", "data_loader.args.source=digits", f"trainer.save_dir={save_dir}"]
    return run_train("-c", str(ROOT / "config.json"), *(arg for setting in args for arg in ("--set", setting)))


def assert_same(run_dir: Path, expected: Path) -> None:
    assert status_of(run_dir)["status"] == "completed"
    assert records_of(run_dir) == records_of(expected)
    one, other = newest(run_dir), newest(expected)
    for part in ("model", "optimizer", "monitor", "rng"):
        assert_equal(one[part], other[part], part)


def the_run_of(save_dir: Path) -> Path:
    [run_dir] = (save_dir / "Mnist_LeNet").iterdir()
    return run_dir


@pytest.mark.slow
def test_it_runs_and_what_it_stops_and_resumes_is_the_run_that_was_never_stopped(tmp_path: Path) -> None:
    done = execute(notebook(tmp_path / "saved"))
    [error] = outputs(done, "error")  # of the stop alone: its message, without a traceback
    assert error.ename == "Stopped"
    assert error.traceback == [f"Stopped: {error.evalue}"]
    assert "stopped by SIGINT at epoch 2, step 1; resume with" in error.evalue
    assert {output.name for output in outputs(done, "stream")} == {"stdout"}
    shown = outputs(done, "display_data")
    assert ["image/png" in output.data for output in shown] == [False, False, True, True]
    assert shown[1].data["text/plain"].startswith("run 100%|")
    table = "".join(output.text for output in outputs(done, "stream"))
    assert table.count("epoch  ") == 2  # a header for each of the two parts of the run
    assert_same(the_run_of(tmp_path / "saved"), never_stopped(tmp_path / "whole"))


@pytest.mark.slow
def test_a_kernel_that_dies_goes_on_in_a_fresh_one(tmp_path: Path) -> None:
    content = notebook(tmp_path / "saved")
    [cell] = [cell for cell in content.cells if "signal.SIGINT" in cell.source]
    cell.source = cell.source.replace("signal.SIGINT", "signal.SIGKILL")
    with pytest.raises(DeadKernelError):
        execute(content)
    assert status_of(the_run_of(tmp_path / "saved"))["status"] == "running"
    execute(notebook(tmp_path / "saved"))
    assert_same(the_run_of(tmp_path / "saved"), never_stopped(tmp_path / "whole"))


def test_it_is_kept_without_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")] == []
