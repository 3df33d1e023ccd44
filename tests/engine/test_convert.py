"""Old checkpoints: recognised without unpickling, converted without running anything in them, and loaded in part."""

from __future__ import annotations

import json
import os
import re
import resource
import runpy
import sys
import warnings
import zipfile
from collections import Counter, OrderedDict, deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from checkpoint.convert import convert, main
from checkpoint.file import find_checkpoint, load_checkpoint, serialise
from checkpoint.parts import load_fitting_weights
from faults import CONTEXT, exit_code
from utils.errors import CheckpointError, RunDirError
from utils.weights import load_weights

ROOT = next(parent for parent in Path(__file__).resolve().parents if (parent / "checkpoint").is_dir())

# What the published template saves: base/base_trainer.py and parse_config.py of victoresque/pytorch-template.
PARSE_CONFIG = """
import logging
from pathlib import Path

class ConfigParser:
    def __init__(self, config, attribute="_config"):
        setattr(self, attribute, config)
        self.resume = None
        self._save_dir, self._log_dir = Path("saved/models/Mnist/0101_120000"), Path("saved/log/Mnist/0101_120000")
        self.log_levels = {0: logging.WARNING, 1: logging.INFO, 2: logging.DEBUG}
"""
SAVE = """
import json
from collections import OrderedDict
import numpy as np, torch
from parse_config import ConfigParser

class Net(torch.nn.Sequential):
    pass

with open("config.json") as file:
    config = json.load(file, object_hook=OrderedDict)

def save(name, is_zip, wrap=lambda model: model, attribute="_config"):
    torch.manual_seed(0)
    model = wrap(Net(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2)))
    optimizer = torch.optim.Adam(model.parameters(), amsgrad=True)
    model(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    state = {
        "arch": type(model).__name__,
        "epoch": 7,
        "state_dict": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "monitor_best": np.float64(0.25),
        "config": ConfigParser(config, attribute),
    }
    torch.save(state, name, _use_new_zipfile_serialization=is_zip)
    torch.save(getattr(model, "module", model).state_dict(), "weights-" + name, _use_new_zipfile_serialization=is_zip)
    torch.save(model, "model-" + name, _use_new_zipfile_serialization=is_zip)

for is_zip in (True, False):
    kind = "zip" if is_zip else "legacy"
    save(kind + ".pth", is_zip)
    save(kind + "-parallel.pth", is_zip, wrap=torch.nn.DataParallel)
    save(kind + "-2019.pth", is_zip, attribute="config")
"""
CONVERT = r": damaged, or not a checkpoint of this project; .*python -m checkpoint\.convert --trust OLD NEW$"
CONFIG = {"name": "Mnist_LeNet", "arch": {"type": "Net", "args": {}}, "trainer": {"epochs": 100, "monitor": "min loss"}}
KINDS = ("zip", "legacy")

pytestmark = pytest.mark.e2e  # old checkpoints are made by a process of its own
NAMES = [f"{kind}{variant}.pth" for kind in KINDS for variant in ("", "-parallel", "-2019")]


@pytest.fixture(scope="module")
def old_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory of checkpoints that a process with the published template's ConfigParser has saved."""
    folder = tmp_path_factory.mktemp("old")
    (folder / "parse_config.py").write_text(PARSE_CONFIG)
    (folder / "save.py").write_text(SAVE)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    process = CONTEXT.Process(target=_save, args=(folder,))
    process.start()
    assert exit_code(process) == 0
    return folder


def _save(folder: Path) -> None:
    """Run save.py, whose parse_config is the one beside it, as a script."""
    os.chdir(folder)
    for name in [name for name in sys.modules if name.split(".")[0] == "parse_config"]:
        del sys.modules[name]
    sys.path.insert(0, str(folder))
    warnings.simplefilter("ignore")
    runpy.run_path("save.py", run_name="__main__")


def network() -> nn.Module:
    """Return a model as SAVE makes it, initialised otherwise."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Tell whether two state dicts are equal to the bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", NAMES)
def test_an_old_checkpoint_becomes_one_of_today(name: str, old_dir: Path, tmp_path: Path) -> None:
    line = convert(old_dir / name, tmp_path / "new.pth")
    checkpoint = load_checkpoint(tmp_path / "new.pth")
    assert checkpoint["position"] == {"epoch": 8, "step_in_epoch": 0, "global_step": 0}
    assert checkpoint["epoch"] == 7
    assert checkpoint["config"] == CONFIG
    expected = torch.load(old_dir / f"weights-{name}", weights_only=True)
    model = network()
    load_weights(model, checkpoint["model"], "new.pth")
    assert same(dict(model.state_dict()), dict(expected))
    assert "\n" not in line
    assert re.search(r"new.pth: 9 tensors, epoch 7, of .*not the optimizer's state", line)
    assert [path.name for path in tmp_path.iterdir()] == ["new.pth"]


@pytest.mark.parametrize("name", [f"weights-{kind}.pth" for kind in KINDS])
def test_weights_alone_become_a_checkpoint_before_the_first_epoch(name: str, old_dir: Path, tmp_path: Path) -> None:
    convert(old_dir / name, tmp_path / "new.pth")
    checkpoint = load_checkpoint(tmp_path / "new.pth")
    assert same(checkpoint["model"], dict(torch.load(old_dir / name, weights_only=True)))
    assert (checkpoint["epoch"], checkpoint["position"]["epoch"], checkpoint["config"]) == (0, 1, {})


def test_parameters_are_weights_too_and_keep_their_dtype(tmp_path: Path) -> None:
    content = {"a": nn.Parameter(torch.randn(3)), "b": torch.randn(2).bfloat16(), "c": torch.ones(2) > 0}
    torch.save(content, tmp_path / "old.pth")
    convert(tmp_path / "old.pth", tmp_path / "new.pth")
    assert same(load_checkpoint(tmp_path / "new.pth")["model"], content)


def test_a_name_is_stripped_only_where_all_have_the_prefix(tmp_path: Path) -> None:
    torch.save({"module.a": torch.zeros(1), "head": torch.zeros(1)}, tmp_path / "old.pth")
    convert(tmp_path / "old.pth", tmp_path / "new.pth")
    assert set(load_checkpoint(tmp_path / "new.pth")["model"]) == {"module.a", "head"}


class Call:
    """Its unpickling runs a command."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("key", ["config", "monitor_best", "arch", "epoch", "state_dict"])
def test_nothing_of_a_hostile_checkpoint_runs(key: str, is_zip: bool, tmp_path: Path) -> None:
    touched, old = tmp_path / "touched", tmp_path / "old.pth"
    state: dict[str, Any] = {"arch": "Net", "epoch": 1, "state_dict": {"a": torch.zeros(1)}, "monitor_best": 0.0}
    torch.save(state | {key: Call(touched)}, old, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(CheckpointError, match=CONVERT):
        load_checkpoint(old)
    with pytest.raises(CheckpointError, match=CONVERT):
        find_checkpoint(old)
    if key == "state_dict":
        with pytest.raises(CheckpointError, match="no weights in it"):
            convert(old, tmp_path / "new.pth")
        assert not (tmp_path / "new.pth").exists()
    else:
        convert(old, tmp_path / "new.pth")
        assert "a" in load_checkpoint(tmp_path / "new.pth")["model"]
    assert not touched.exists()
    torch.load(old, weights_only=False)  # as the published template does: the file is as hostile as this test says
    assert touched.exists()


@pytest.mark.parametrize(
    "pickled",
    [
        b"cos\nsystem\n(Vtouch touched\ntR.",
        b"cposix\nsystem\n(Vtouch touched\ntR.",
        b"(Vtouch touched\nios\nsystem\n.",
        b"c__builtin__\neval\n(Vopen('touched', 'w')\ntR.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0dtouch touched\x85R.",
        b"cbuiltins\ngetattr\n(ctorch\nsave\nV__globals__\ntR.",
        b"ctorch._utils\n_rebuild_tensor_v2\n(N}V__code__\ncos\nsystem\nstbctorch\nzeros\n(I1\ntR.",
    ],
)
def test_no_opcode_of_a_hostile_pickle_runs_anything(
    pickled: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile("old.pth", "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3\n")
    with pytest.raises(CheckpointError, match=r"^old.pth: "):
        convert(Path("old.pth"), Path("new.pth"))
    assert os.listdir() == ["old.pth"]


@pytest.mark.parametrize("name", [*NAMES, "weights-zip.pth", "weights-legacy.pth"])
def test_an_old_checkpoint_is_refused_with_the_command_that_converts_it(name: str, old_dir: Path) -> None:
    path = old_dir / name
    for use in (load_checkpoint, find_checkpoint):
        with pytest.raises(CheckpointError, match=f"^{path}{CONVERT}") as caught:
            use(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_an_old_run_directory_is_refused_with_the_command_too(
    kind: str, old_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("checkpoint-epoch5.pth", "checkpoint-epoch10.pth", "model_best.pth"):
        (tmp_path / name).write_bytes((old_dir / f"{kind}.pth").read_bytes())
    what = f"^{tmp_path}: none of its 3 checkpoints is whole: {tmp_path}"
    with pytest.raises(CheckpointError, match=f"{what}/checkpoint-epoch10.pth{CONVERT}"):
        find_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match=f"{what}/model_best.pth{CONVERT}"):
        find_checkpoint(tmp_path, prefer="model_best.pth")
    assert caplog.text == ""
    (tmp_path / "latest.pth").write_bytes(ours())
    assert find_checkpoint(tmp_path).name == "latest.pth"
    assert caplog.text.count("skipped: ") == 3


def ours() -> bytes:
    """Return a checkpoint of this project."""
    state = {"position": {"epoch": 2, "step_in_epoch": 0, "global_step": 9}, "model": {"a": torch.zeros(3)}}
    return serialise(state | {"environment": {}})


def test_a_checkpoint_of_ours_with_a_damaged_seal_is_damaged_and_not_old(tmp_path: Path) -> None:
    path = tmp_path / "latest.pth"
    path.write_bytes(ours().replace(b"sha256=", b"sha257="))
    with pytest.raises(CheckpointError, match=r"damaged, or not a checkpoint of this project$"):
        load_checkpoint(path)
    path.write_bytes(ours())
    with pytest.raises(CheckpointError, match="no weights in it"):
        convert(path, tmp_path / "new.pth")


@pytest.mark.parametrize("kind", KINDS)
def test_an_old_checkpoint_cut_short_is_reported_in_one_line_and_leaves_nothing(
    kind: str, old_dir: Path, tmp_path: Path
) -> None:
    data = (old_dir / f"{kind}.pth").read_bytes()
    for length in [0, 1, 15, *range(100, len(data), 307), len(data) - 1]:
        (tmp_path / "old.pth").write_bytes(data[:length])
        for use in (load_checkpoint, lambda path: convert(path, tmp_path / "new.pth")):
            with pytest.raises(CheckpointError, match=r"old.pth: ") as caught:
                use(tmp_path / "old.pth")
            assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["old.pth"]


@pytest.mark.parametrize(
    "content",
    [
        [torch.zeros(1)],
        {},
        {"model": {"a": torch.zeros(1)}},
        {"state_dict": {"a": torch.zeros(1), "b": 3}},
        {1: torch.zeros(1)},
        Path("a"),
    ],
)
def test_what_holds_no_weights_is_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "old.pth")
    with pytest.raises(CheckpointError, match=r"old.pth: no weights in it; of a whole model, save its state_dict\(\)"):
        convert(tmp_path / "old.pth", tmp_path / "new.pth")
    assert not (tmp_path / "new.pth").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_model_is_refused(kind: str, old_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model-.*pth: "):
        convert(old_dir / f"model-{kind}.pth", tmp_path / "new.pth")


def test_objects_of_any_class_do_not_hinder_and_plain_values_of_the_config_stay(tmp_path: Path) -> None:
    config = {"a": {"b": (1, 2.5)}, "c": None, "data_dir": Path("data")}
    state = {"state_dict": {"a": torch.zeros(1)}, "config": config, "epoch": np.int64(3)}
    torch.save(state | {"x": deque([1], 3), "y": np.zeros(2), "z": Counter("ab")}, tmp_path / "old.pth")
    convert(tmp_path / "old.pth", tmp_path / "new.pth")
    checkpoint = load_checkpoint(tmp_path / "new.pth")
    assert checkpoint["config"] == {"a": {"b": [1, 2.5]}, "c": None, "data_dir": {}}
    assert checkpoint["epoch"] == 0


def test_no_file_is_overwritten_and_none_left_half_written(old_dir: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.pth"
    new.write_text("mine")
    with pytest.raises(CheckpointError, match=r"new.pth: is there already"):
        convert(old_dir / "zip.pth", new)
    assert new.read_text() == "mine"
    with pytest.raises(CheckpointError, match="is there already"):
        convert(old_dir / "zip.pth", old_dir / "zip.pth")
    with pytest.raises(RunDirError, match="cannot be written to: No such file"):
        convert(old_dir / "zip.pth", tmp_path / "missing" / "new.pth")
    with pytest.raises(CheckpointError, match="cannot be read: FileNotFoundError"):
        convert(tmp_path / "missing.pth", tmp_path / "other.pth")
    assert os.listdir(tmp_path) == ["new.pth"]


def test_a_full_disk_leaves_no_file(old_dir: Path, tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))  # to a program it is what a full disk is
    try:
        with pytest.raises(RunDirError, match=f"^{tmp_path}: cannot be written to: File too large$"):
            convert(old_dir / "zip.pth", tmp_path / "new.pth")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path) == []


def test_the_command_asks_for_trust(old_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(old_dir / "legacy.pth"), str(tmp_path / "new.pth")]
    with pytest.raises(CheckpointError, match=r"not read: a pickle can run code; where you know .*, add --trust$"):
        main(files)
    assert os.listdir(tmp_path) == []
    main(["--trust", *files])
    printed = capsys.readouterr().out
    assert printed.startswith(f"{tmp_path}/new.pth: 9 tensors, epoch 7")
    assert printed.count("\n") == 1
    with pytest.raises(CheckpointError, match="is there already"):
        main(["--trust", *files])


def test_weights_that_fit_are_loaded_and_the_rest_is_reported() -> None:
    model, before = network(), {name: value.clone() for name, value in network().state_dict().items()}
    weights: dict[str, Any] = {name: torch.full_like(value, 3) for name, value in before.items()}
    weights["2.weight"] = torch.zeros(5, 4)
    weights["2.bias"] = weights["2.bias"].double()
    weights["0.bias"] = [1.0]
    del weights["1.running_var"]
    weights["head.weight"] = torch.zeros(2, 2)
    assert load_fitting_weights(model, weights, "here").splitlines() == [
        "here: 5 of the model's 9 tensors fit and are loaded",
        "  0.bias: no tensor but list in the file, float32 [4] in the model",
        "  1.running_var: not in the file, float32 [4] in the model",
        "  2.weight: float32 [5, 4] in the file, float32 [2, 4] in the model",
        "  2.bias: float64 [2] in the file, float32 [2] in the model",
        "  head.weight: float32 [2, 2] in the file, not in the model",
    ]
    loaded = {"0.weight", "1.weight", "1.bias", "1.running_mean", "1.num_batches_tracked"}
    assert same(dict(model.state_dict()), {name: weights[name] if name in loaded else before[name] for name in before})


def test_weights_that_all_fit_are_as_load_weights_loads_them() -> None:
    weights = {name: torch.full_like(value, 3) for name, value in network().state_dict().items()}
    one, other = network(), network()
    assert load_fitting_weights(one, weights, "here") == "here: 9 of the model's 9 tensors fit and are loaded"
    load_weights(other, weights, "here")
    assert same(dict(one.state_dict()), dict(other.state_dict()))


def test_weights_of_which_none_fits_change_nothing_and_are_reported_in_a_short_table() -> None:
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    weights = OrderedDict((f"backbone.{index}", torch.zeros(1)) for index in range(30))
    with pytest.raises(CheckpointError, match=r"^here: 0 of the model's 9 tensors fit") as caught:
        load_fitting_weights(model, weights, "here")
    lines = str(caught.value).splitlines()
    assert len(lines) == 22
    assert lines[-1] == "  and 19 more"
    assert same(dict(model.state_dict()), before)


def test_a_sparse_tensor_is_no_fit_for_a_dense_one() -> None:
    model = nn.Linear(2, 2)
    sparse = torch.eye(2).to_sparse()
    table = load_fitting_weights(model, {"weight": sparse, "bias": torch.ones(2)}, "here")
    assert "sparse_coo float32 [2, 2] in the file, float32 [2, 2] in the model" in table
