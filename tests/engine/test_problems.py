"""A config cannot be wrong without being told, nor from a stranger do harm."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
import yaml

from example_runs import run_train, train
from helpers import ROOT
from mutations import Mutant, mutants
from parse_config import ConfigParser
from parse_config.config_file import read_config
from parse_config.reference import json_schema, with_reference
from slots import SLOTS
from train import parse_args
from utils import ConfigError, told_to_user

# ruff: noqa: SIM905  # words, not lists of quoted words
SHIPPED = sorted([ROOT / "config.json", *(ROOT / "configs").iterdir(), ROOT / "tests" / "published_config.json"])


def content_of(path: Path) -> dict[str, Any]:
    """Return the config in `path` without what is for editors."""
    return {key: value for key, value in read_config(path).items() if key != "$schema"}


MUTANTS = [mutant for path in SHIPPED for mutant in mutants(content_of(path), random.Random(path.name))]


def test_there_are_two_hundred_mutants_of_every_kind() -> None:
    assert len(MUTANTS) >= 200
    kinds = {mutant.kind for mutant in MUTANTS}
    assert kinds == {"misspelt key", "misspelt type", "wrong type", "missing", "out of range", "extra", "nested"}


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.kind} {mutant.path}")
def test_every_mutant_is_told_with_its_path_and_the_right_name(
    mutant: Mutant, suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    dump = json.dumps if suffix == ".json" else yaml.safe_dump
    Path(f"wrong{suffix}").write_text(dump(mutant.config))
    with pytest.raises(SystemExit) as caught, told_to_user():
        run_train("-c", f"wrong{suffix}")
    lines = capsys.readouterr().err.splitlines()
    assert caught.value.code == 2
    assert [line for line in lines if not line.startswith(f"wrong{suffix}: ")] == []
    told = [line for line in lines if line.startswith(f"wrong{suffix}: {mutant.path}: ")]
    assert told, lines
    if mutant.meant is not None:
        assert f"did you mean '{mutant.meant}'?" in told[0]
    assert [path.name for path in tmp_path.iterdir()] == [f"wrong{suffix}"]


HOSTILE_NAMES = """
    os sys subprocess os.system logging.os.system builtins.eval eval exec __import__ open compile input getattr
    __builtins__ __class__ __init__ __dict__ __loader__ __spec__ __name__ __file__ torch torch.load torch.hub.load
    torch.save torch.ops.load_library F nn nn.Module Module Tensor BaseModel BaseDataLoader Optimizer LRScheduler
    ConfigError partial Path gzip np pickle.loads ../../evil model.model.nn model.loss.F Callable annotations
    Annotated lr_scheduler adam Adam.__init__ Adam.step.__globals__ swa_utils _multi_tensor _LRScheduler _Loss
    MnistModel.__mro__ Sampler SeededSamples random_shift split_indices DataLoader
""".split()
HOSTILE_RUNS = r"""
    ../x ../../x /etc/x /tmp/x . .. ... a/b a\b ./a a/../b ~ ~root $HOME `id` $(id) a;b a|b a&b a>b a<b a*b a?b a[b]
    a{b} a'b a"b a%b a:b a=b a,b a@b a!b a#b a^b -rf .hidden
""".split()
HOSTILE_RUNS += ["", " ", "a b", "a\nb", "a\0b", "ä", "a" * 65, "\u202ea"]


def test_there_are_enough_hostile_names() -> None:
    assert len(set(HOSTILE_NAMES)) >= 60
    assert len(set(HOSTILE_RUNS)) >= 40


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_hostile_type_is_found_in_no_section(name: str, config: dict[str, Any]) -> None:
    for section, slot in SLOTS.items():
        if section != "lr_lambda":
            wrong = config | {section: [{"type": name}] if section == "metrics" else {"type": name}}
            with pytest.raises(ConfigError, match=r"\.type: unknown type"):
                ConfigParser(wrong, slots=SLOTS)
        with pytest.raises(ConfigError, match="unknown type"):
            slot.find(name, section)


@pytest.mark.parametrize("name", HOSTILE_RUNS)
def test_a_hostile_run_name_is_refused(name: str, config: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="name: "):
        ConfigParser(config | {"name": name}, slots=SLOTS)


def test_a_symbolic_link_in_the_place_of_an_experiment_is_not_followed(config: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "saved" / config["name"]).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="symbolic link"):
        ConfigParser(config, slots=SLOTS)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_every_shipped_config_is_right_by_schema_and_check(path: Path) -> None:
    jsonschema.validate(read_config(path), json_schema(SLOTS))
    ConfigParser(content_of(path), slots=SLOTS)


@pytest.mark.parametrize(
    "mutant",
    [mutant for mutant in MUTANTS if mutant.kind != "out of range" and "monitor" not in mutant.path],
    ids=lambda mutant: f"{mutant.kind} {mutant.path}",
)
def test_the_schema_refuses_what_the_check_refuses(mutant: Mutant) -> None:
    validator = jsonschema.Draft202012Validator(json_schema(SLOTS))
    assert not validator.is_valid(mutant.config)


def test_the_schema_and_the_reference_in_the_readme_are_current() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme == with_reference(readme), "run make docs"
    committed, made = json.loads((ROOT / "config.schema.json").read_text()), json_schema(SLOTS)
    if committed["$comment"] != made["$comment"]:
        pytest.skip(f"config.schema.json was {committed['$comment']}, this is torch {torch.__version__}")
    assert committed == made, "run make docs"


def test_types_and_ranges_are_those_of_the_annotations(config: dict[str, Any]) -> None:
    config["optimizer"]["args"] = {"lr": "fast", "betas": [0.9], "amsgrad": 1}
    config["arch"]["args"] = {"dropout": 1.5, "num_classes": 10.5}
    with pytest.raises(ConfigError) as caught:
        ConfigParser(config, slots=SLOTS)
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "arch.args.dropout",
        "arch.args.num_classes",
        "optimizer.args.lr",
        "optimizer.args.betas",
        "optimizer.args.amsgrad",
    ]


def test_a_list_of_numbers_is_the_tensor_that_a_loss_takes(config: dict[str, Any]) -> None:
    weights = [float(i) for i in range(10)]
    config["loss"] = {"type": "CrossEntropyLoss", "args": {"weight": weights}}
    assert ConfigParser(config, slots=SLOTS).init_obj("loss").weight.tolist() == weights


def test_a_schedule_is_evaluated_at_its_first_and_its_last_epoch(config: dict[str, Any]) -> None:
    config["lr_scheduler"]["args"]["lr_lambda"] = "1 / (2 - epoch)"  # there are 2 epochs
    with pytest.raises(ConfigError, match=r"lr_lambda: .* at epoch = 2: "):
        ConfigParser(config, slots=SLOTS)


def test_a_new_keyword_takes_a_plus_where_a_type_takes_any(config: dict[str, Any]) -> None:
    config["metrics"] = [{"type": "MeanAbsoluteError"}]
    config["trainer"]["monitor"] = "min val_loss"
    with pytest.raises(ConfigError, match=r"metrics.0.args.sync_on_computee: unknown argument .*--set \+metrics"):
        ConfigParser(config, modification={"metrics.0.args.sync_on_computee": False}, slots=SLOTS)
    parsed = ConfigParser(config, modification={"+metrics.0.args.sync_on_compute": False}, slots=SLOTS)
    assert parsed.init_obj("metrics")[0].sync_on_compute is False


def write(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_a_config_extends_others(config: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "base.json", config)
    write(tmp_path / "fast.json", {"trainer": {"epochs": 1}, "metrics": ["accuracy"]})
    child = {"extends": ["base.json", "fast.json"], "optimizer": {"type": "SGD", "args": {"lr": 0.1}}, "seed": 3}
    parsed = parse_args(["-c", str(write(tmp_path / "child.json", child)), "--set", "seed=4"])
    assert parsed["optimizer"] == {"type": "SGD", "args": {"lr": 0.1}}
    assert parsed["metrics"] == ["accuracy"]
    assert parsed["trainer"]["epochs"] == 1
    assert parsed["arch"] == config["arch"]
    assert "child.json: optimizer: is a SGD; the args of Adam are dropped" in caplog.text
    origins = {path: Path(source).name for path, _, source in parsed.layers.origins()}
    assert origins["arch.type"] == "base.json"
    assert origins["trainer.epochs"] == "fast.json"
    assert origins["optimizer.args.lr"] == "child.json"
    assert origins["seed"] == "command line"
    assert origins["trainer.precision"] == "default"


def test_a_config_that_extends_itself_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.json", {"extends": "b.json"})
    path = write(tmp_path / "b.json", {"extends": "a.json"})
    with pytest.raises(ConfigError, match="leads back to itself"):
        parse_args(["-c", str(path)])


def test_num_classes_must_be_that_of_the_data(config: dict[str, Any]) -> None:
    config["arch"]["args"]["num_classes"] = 9
    config["metrics"] = [{"type": "MulticlassAccuracy", "args": {"num_classes": 9}}]
    with pytest.raises(ConfigError) as caught:
        ConfigParser(config, slots=SLOTS)
    assert caught.value.problems == [
        "arch.args.num_classes: 9, but the data of MnistDataLoader has 10 classes",
        "metrics.0.args.num_classes: 9, but the data of MnistDataLoader has 10 classes",
    ]


def test_the_steps_of_one_cycle_must_last(config: dict[str, Any]) -> None:
    args = {"max_lr": 0.01, "total_steps": 41}
    config["lr_scheduler"] = {"type": "OneCycleLR", "interval": "step", "args": args}
    with pytest.raises(ConfigError, match="total_steps: 41, but the run makes 42"):
        train(config)
    config["lr_scheduler"]["args"]["total_steps"] = 42
    train(config)


@pytest.mark.parametrize(
    ("scheduler", "reason"),
    [
        ({"type": "ReduceLROnPlateau", "interval": "step"}, "lr_scheduler.interval: ReduceLROnPlateau follows"),
        (
            {"type": "ReduceLROnPlateau", "args": {"mode": "max"}},
            "mode: 'max', but the value to follow is 'min val_loss'",
        ),
        (
            {"type": "LambdaLR", "interval": "step", "args": {"lr_lambda": "1 / (42 - step)"}},
            "lr_lambda: .* at step = 42: ",
        ),
    ],
)
def test_a_schedule_must_fit_the_run(scheduler: dict[str, Any], reason: str, config: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=reason):
        train(config | {"lr_scheduler": scheduler})


@pytest.mark.parametrize(
    "change",
    [
        {"metrics": [5]},
        {"metrics": [{"type": ["a"]}]},
        {"metrics": {"type": "accuracy"}},
        {"name": 5},
        {"arch": "MnistModel"},
        {"optimizer": []},
        {"lr_scheduler": {"type": "LambdaLR", "interval": 5, "args": {"lr_lambda": "1"}}},
        {"lr_scheduler": {"type": "LambdaLR", "args": {"lr_lambda": {"type": "warmup_cosine", "args": 5}}}},
        {"lr_scheduler": {"type": "LambdaLR", "args": {"lr_lambda": {"type": "warmup_cosine", "extra": 5}}}},
        {"loss": {"type": "CrossEntropyLoss", "args": {"reduction": "sum"}}},
        {"loss": "TripletMarginLoss"},
        {"optimizer": {"type": "LBFGS"}},
        {"metrics": ["accuracy", {"type": "accuracy"}], "trainer": {"epochs": 1}},
        {"metrics": [{"type": "accuracy", "name": "loss"}]},
        {"trainer": 5},
        {"trainer": None},
    ],
    ids=str,
)
def test_odd_configs_are_refused_and_not_stumbled_over(change: dict[str, Any], config: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        ConfigParser(config | change, slots=SLOTS)


def test_set_of_a_whole_section_comes_before_what_is_in_it(
    config: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    path = write(Path(config["trainer"]["save_dir"]).parent / "c.json", config)
    args = ["-c", str(path), "--lr", "0.5", "--set", 'optimizer={"type":"SGD"}', "--set", "loss.type=cross_entropy"]
    parsed = parse_args(args)
    assert parsed["optimizer"] == {"type": "SGD", "args": {"lr": 0.5}}
    origins = {path: source for path, _, source in parsed.layers.origins()}
    assert origins["optimizer.type"] == origins["optimizer.args.lr"] == origins["loss.type"] == "command line"
    parse_args(["-c", str(path), "--set", "optimizer.type=SGD"])
    assert "optimizer.type=SGD: the former args are dropped: {'lr': 0.002}" in caplog.text


@pytest.mark.parametrize(
    "change",
    [
        {"lr_lambda": {"type": "warmup_cosine", "args": {"warmup": 1, "total": 3}}},
        {"optimizer": {"type": "Adam", "args": {"foreach": True, "fused": True}}},
        {"optimizer": {"type": "Adam", "args": {"lr": [0.1]}}},
        {"optimizer": {"type": "Adam", "args": {"lr": 10**400}}},
        {"lr_scheduler": {"type": "StepLR", "args": {"step_size": 0}}},
        {"lr_scheduler": {"type": "CosineAnnealingLR", "args": {"T_max": 0}}},
        {"trainer": {"epochs": 1, "save_dir": "a\0b"}},
    ],
    ids=lambda change: str(change)[:60],
)
def test_values_that_only_libraries_refuse_are_told_before_anything_happens(
    change: dict[str, Any], config: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError):
        ConfigParser(config | change, slots=SLOTS)


@pytest.mark.parametrize("extends", [5, None, {"a": 1}, ["a", 5], "a\0b"])
def test_extends_is_a_path_or_a_list_of_paths(extends: Any, config: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="extends: "):
        parse_args(["-c", str(write(tmp_path / "c.json", config | {"extends": extends}))])


def test_a_config_that_extends_may_leave_out_what_it_extends() -> None:
    child = {"extends": "config.json", "optimizer": {"args": {"lr": 1}}, "trainer": {"early_stop": 2}}
    jsonschema.validate(child, json_schema(SLOTS))
    assert not jsonschema.Draft202012Validator(json_schema(SLOTS)).is_valid({"seed": 2})


def test_a_debugging_run_is_not_gone_on_with(config: dict[str, Any], tmp_path: Path) -> None:
    path = str(write(tmp_path / "c.json", config))
    debugging = run_train("-c", path, "--fast-dev-run")
    assert run_train("-c", path, "--resume-latest") != debugging


@pytest.mark.parametrize(
    "change",
    [
        {"loss": {"type": "CrossEntropyLoss", "args": {"weight": [1.0, 1.0, 1.0]}}},
        {"loss": "KLDivLoss"},
        {"metrics": [{"type": "top_k_acc", "args": {"k": 50}}]},
        {"metrics": ["MeanMetric"]},
        {"metrics": [{"type": "MulticlassConfusionMatrix", "args": {"num_classes": 10}}]},
        {"metrics": [{"type": "MulticlassF1Score", "args": {"num_classes": 10, "average": None}}]},
    ],
    ids=lambda change: str(change)[:60],
)
def test_losses_and_metrics_that_refuse_a_batch_are_told_before_the_run(
    change: dict[str, Any], config: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=r"loss or metrics do not take|not a number that can be logged"):
        train(config | change)
    assert not list(Path(config["trainer"]["save_dir"]).glob("*/*"))
