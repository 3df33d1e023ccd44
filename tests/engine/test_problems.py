"""A config cannot be wrong without a message, nor harm whoever runs it if it comes from a stranger."""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import toy
from helpers import write_given
from mutations import Mutant, mutants
from parse_config import Slot
from parse_config.reference import json_schema, reference_table, with_reference
from toy_runs import parsed, run, small_config, train
from utils import ConfigError, exit_on_user_error

# ruff: noqa: SIM905  # words, not lists of quoted words
RICH = small_config(Path("saved")) | {
    "loss": {"type": "CrossEntropyLoss", "args": {"label_smoothing": 0.1}},
    "metrics": ["accuracy", {"type": "top_k", "args": {"k": 3}}],
    "teacher": {"type": "narrow_net", "args": {"width": 3}, "weight": 0.1},
    "curriculum": {"first_epoch": 2, "note": "why"},
    "lr_scheduler": {"type": "LambdaLR", "args": {"lr_lambda": {"type": "inverse_decay", "args": {"rate": 0.5}}}},
}
RICH["trainer"] = RICH["trainer"] | {"precision": "bf16", "ema_decay": 0.9, "stretch": 2.0, "loop": "plain"}
NAMED = small_config(Path("saved")) | {
    "arch": {"first": {"type": "ToyNet", "args": {"width": 4}}, "second": {"type": "ToyNet"}},
    "optimizer": {
        "first": {"type": "Adam", "args": {"lr": 0.1}, "no_decay": True, "params": ["first.*"]},
        "second": {"type": "SGD", "args": {"momentum": 0.5}},
    },
    "lr_scheduler": {"second": {"type": "StepLR", "interval": "step", "args": {"step_size": 2}}},
}
FOR_THE_CHECK = {"monitor", "lr_lambda"}  # what a schema cannot tell
MUTANTS = [mutant for config in (toy.CONFIG, RICH, NAMED) for mutant in mutants(config, random.Random(0))]


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    """Return the toy's config."""
    return small_config(tmp_path / "saved")


def problems(config: dict[str, Any]) -> list[str]:
    """Return what is wrong with `config`."""
    with pytest.raises(ConfigError) as caught:
        parsed(config)
    return caught.value.problems


@cache
def validator() -> jsonschema.Draft202012Validator:
    """Return what checks a config by the toy's schema."""
    return jsonschema.Draft202012Validator(json_schema(toy.SLOTS))


def test_there_are_a_hundred_mutants_of_every_kind() -> None:
    assert len(MUTANTS) >= 100
    kinds = {mutant.kind for mutant in MUTANTS}
    assert kinds == {"misspelt key", "misspelt type", "wrong type", "missing", "out of range", "extra", "nested"}


@pytest.mark.parametrize(
    ("mutant", "suffix"),
    [(mutant, (".json", ".yaml")[i % 2]) for i, mutant in enumerate(MUTANTS)],
    ids=[f"{i} {mutant.kind} {mutant.path}" for i, mutant in enumerate(MUTANTS)],
)
def test_every_mutant_is_reported_with_its_path_and_the_right_name(
    mutant: Mutant, suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    dump = json.dumps if suffix == ".json" else yaml.safe_dump
    Path(f"wrong{suffix}").write_text(dump(mutant.config))
    with pytest.raises(SystemExit) as caught, exit_on_user_error():
        run("-c", f"wrong{suffix}")
    lines = capsys.readouterr().err.splitlines()
    assert caught.value.code == 2
    assert [line for line in lines if not line.startswith(f"wrong{suffix}: ")] == []
    found = [line for line in lines if line.startswith(f"wrong{suffix}: {mutant.path}: ")]
    assert found, lines
    if mutant.meant is not None:
        assert f"did you mean '{mutant.meant}'?" in found[0]
    assert [path.name for path in tmp_path.iterdir()] == [f"wrong{suffix}"]


@pytest.mark.parametrize(
    "mutant",
    [mutant for mutant in MUTANTS if mutant.kind != "out of range" and not FOR_THE_CHECK & set(mutant.path.split("."))],
    ids=lambda mutant: f"{mutant.kind} {mutant.path}",
)
def test_the_schema_refuses_what_the_check_refuses(mutant: Mutant) -> None:
    assert not validator().is_valid(mutant.config)


@pytest.mark.parametrize("config", [toy.CONFIG, RICH, NAMED], ids=["small", "rich", "named"])
def test_the_schema_and_the_check_take_a_right_config(config: dict[str, Any]) -> None:
    validator().validate(config | {"$schema": "./config.schema.json", "_comment": "mine"})
    parsed(config)


def test_a_config_that_extends_another_may_leave_out_what_that_has() -> None:
    child = {"extends": "config.json", "optimizer": {"args": {"lr": 1}}, "trainer": {"early_stop": 2}}
    assert validator().is_valid(child)
    assert not validator().is_valid({"seed": 2})


def test_the_reference_has_a_row_for_every_key_and_is_put_between_its_markers() -> None:
    table = reference_table(toy.SLOTS)
    for row in (
        "| `name` | – | letters, digits, '.', '_', '-', at most 64: a directory under save_dir |",
        "| `trainer.stretch` | `1.0` | factor of the loss |",
        "| `curriculum.first_epoch` | `1` | when it begins |",
    ):
        assert row in table
    text = "before\n<!-- config reference: made by make docs -->\nold\n<!-- end of config reference -->\nafter\n"
    assert with_reference(text, toy.SLOTS) == text.replace("old\n", table)


HOSTILE_NAMES = """
    os sys subprocess os.system logging.os.system builtins.eval eval exec __import__ open compile input getattr
    __builtins__ __class__ __init__ __dict__ __loader__ __spec__ __name__ __file__ torch torch.load torch.hub.load
    torch.save torch.ops.load_library F nn nn.Module Module Tensor BaseModel BaseDataLoader Optimizer LRScheduler
    ConfigError partial Path gzip np pickle.loads ../../evil toy.ToyNet toy.F Callable annotations
    Annotated lr_scheduler adam Adam.__init__ Adam.step.__globals__ swa_utils _multi_tensor _LRScheduler _Loss
    ToyNet.__mro__ Sampler SeededSamples split_indices DataLoader Dataset load_checkpoint load_weights _make_data
""".split()
HOSTILE_RUNS = r"""
    ../x ../../x /etc/x /tmp/x . .. ... a/b a\b ./a a/../b ~ ~root $HOME `id` $(id) a;b a|b a&b a>b a<b a*b a?b a[b]
    a{b} a'b a"b a%b a:b a=b a,b a@b a!b a#b a^b -rf .hidden
""".split()
HOSTILE_RUNS += ["", " ", "a b", "a\nb", "a\0b", "ä", "a" * 65, "\u202ea"]


def test_there_are_enough_hostile_names() -> None:
    assert len(set(HOSTILE_NAMES)) >= 60
    assert len(set(HOSTILE_RUNS)) >= 40


@pytest.mark.parametrize("number", range(len(HOSTILE_NAMES)), ids=HOSTILE_NAMES)
def test_a_hostile_type_is_found_in_no_section(number: int, config: dict[str, Any]) -> None:
    name, slots = HOSTILE_NAMES[number], {key: slot for key, slot in toy.SLOTS.items() if isinstance(slot, Slot)}
    for key, slot in slots.items():
        with pytest.raises(ConfigError, match="unknown type"):
            slot.find(name, key)
    keys = [key for key in slots if key != "lr_lambda"]
    section = keys[number % len(keys)]
    wrong = config | {section: [{"type": name}] if section == "metrics" else {"type": name}}
    with pytest.raises(ConfigError, match=r"\.type: unknown type"):
        parsed(wrong)


@pytest.mark.parametrize("name", HOSTILE_RUNS)
def test_a_hostile_run_name_is_refused(name: str, config: dict[str, Any]) -> None:
    assert problems(config | {"name": name})[0].startswith("name: ")


def test_a_symbolic_link_in_the_place_of_an_experiment_is_not_followed(config: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "saved" / config["name"]).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="symbolic link"):
        parsed(config)


def test_types_and_ranges_are_those_of_the_annotations(config: dict[str, Any]) -> None:
    config["optimizer"]["args"] = {"lr": "fast", "betas": [0.9], "amsgrad": 1}
    config["arch"]["args"] = {"dropout": 1.5, "num_classes": 10.5}
    assert [problem.split(":")[0] for problem in problems(config)] == [
        "arch.args.dropout",
        "arch.args.num_classes",
        "optimizer.args.lr",
        "optimizer.args.betas",
        "optimizer.args.amsgrad",
    ]


def test_a_list_of_numbers_is_the_tensor_that_a_loss_takes(config: dict[str, Any]) -> None:
    config["loss"] = {"type": "CrossEntropyLoss", "args": {"weight": [0, 1.5, 2]}}
    assert parsed(config).init_obj("loss").weight.tolist() == [0.0, 1.5, 2.0]


def test_a_schedule_is_evaluated_at_its_first_and_its_last_epoch(config: dict[str, Any]) -> None:
    config["lr_scheduler"]["args"]["lr_lambda"] = "1 / (2 - epoch)"  # there are 2 epochs
    with pytest.raises(ConfigError, match=r"lr_lambda: .* at epoch = 2: "):
        parsed(config)


def test_a_new_keyword_takes_a_plus_where_a_type_takes_any(config: dict[str, Any]) -> None:
    config["metrics"] = [{"type": "MeanAbsoluteError"}]
    with pytest.raises(ConfigError, match=r"metrics\[0\].args.sync_on_computee: unknown argument .*--set \+metrics"):
        parsed(config, metrics__0__args__sync_on_computee=False)
    parser = parsed(config, **{"+metrics__0__args__sync_on_compute": False})
    assert parser.init_obj("metrics")[0].sync_on_compute is False


def test_num_classes_must_be_that_of_the_data(config: dict[str, Any]) -> None:
    config["arch"]["args"]["num_classes"] = 2
    config["metrics"] = [{"type": "MulticlassAccuracy", "args": {"num_classes": 4}}]
    assert problems(config) == [
        "arch.args.num_classes: 2, but the data of SampleLoader has 3 classes",
        "metrics[0].args.num_classes: 4, but the data of SampleLoader has 3 classes",
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"metrics": [5]},
        {"metrics": [{"type": ["a"]}]},
        {"metrics": {"type": "accuracy"}},
        {"name": 5},
        {"arch": "ToyNet"},
        {"optimizer": []},
        {"data_loader": None},
        {"lr_scheduler": {"type": "LambdaLR", "interval": 5, "args": {"lr_lambda": "1"}}},
        {"lr_scheduler": {"type": "LambdaLR", "args": {"lr_lambda": {"type": "inverse_decay", "args": 5}}}},
        {"lr_scheduler": {"type": "LambdaLR", "args": {"lr_lambda": {"type": "inverse_decay", "extra": 5}}}},
        {"loss": {"type": "CrossEntropyLoss", "args": {"reduction": "sum"}}},
        {"loss": "TripletMarginLoss"},
        {"optimizer": {"type": "LBFGS"}},
        {"metrics": ["accuracy", {"type": "accuracy"}], "trainer": {"epochs": 1}},
        {"metrics": [{"type": "accuracy", "name": "loss"}]},
        {"trainer": 5},
        {"trainer": None},
        {"curriculum": None},
        {"teacher": {"type": "ToyNet", "args": []}},
    ],
    ids=str,
)
def test_odd_configs_are_refused_without_a_traceback(change: dict[str, Any], config: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        parsed(config | change)


@pytest.mark.parametrize(
    "change",
    [
        {"lr_lambda": {"type": "inverse_decay", "args": {"rate": 0.1}}},
        {"optimizer": {"type": "Adam", "args": {"foreach": True, "fused": True}}},
        {"optimizer": {"type": "Adam", "args": {"lr": [0.1]}}},
        {"optimizer": {"type": "Adam", "args": {"lr": 10**400}}},
        {"lr_scheduler": {"type": "StepLR", "args": {"step_size": 0}}},
        {"lr_scheduler": {"type": "CosineAnnealingLR", "args": {"T_max": 0}}},
        {"trainer": {"epochs": 1, "save_dir": "a\0b"}},
    ],
    ids=lambda change: str(change)[:60],
)
def test_values_that_only_libraries_refuse_are_reported_before_anything_happens(
    change: dict[str, Any], config: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError):
        parsed(config | change)


# Configs that extend others, and overrides of whole sections.


def write(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(json.dumps(content))
    return path


def origins(parser: Any) -> dict[str, str]:
    """Return by its path where each value is from, as --print-config shows it."""
    lines = [line.rpartition("  # ") for line in parser.layers.describe()]
    return {value.split(" = ")[0]: source for value, _, source in lines}


def test_a_config_extends_others(config: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "base.json", config)
    write(tmp_path / "fast.json", {"trainer": {"epochs": 1}, "metrics": ["top_k"]})
    child = {"extends": ["base.json", "fast.json"], "optimizer": {"type": "SGD", "args": {"lr": 0.1}}, "seed": 3}
    parser = toy.parse_args(["-c", str(write(tmp_path / "child.json", child)), "--set", "seed=4"])
    assert parser["optimizer"] == {"type": "SGD", "args": {"lr": 0.1}}
    assert (parser["metrics"], parser["trainer"]["epochs"], parser["arch"]) == (["top_k"], 1, config["arch"])
    assert "child.json: optimizer: is a SGD; the args of Adam are dropped" in caplog.text
    sources = {path: Path(source).name for path, source in origins(parser).items()}
    assert sources["arch.type"] == "base.json"
    assert sources["trainer.epochs"] == "fast.json"
    assert sources["optimizer.args.lr"] == "child.json"
    assert sources["seed"] == "command line"
    assert sources["trainer.precision"] == "default"


def test_print_config_shows_every_value_and_where_it_is_from(
    config: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_given(config)
    with pytest.raises(SystemExit) as caught:
        toy.parse_args(["-c", path, "--lr", "0.5", "--print-config"])
    assert caught.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert "optimizer.args.lr = 0.5  # command line" in lines
    assert f'arch.type = "ToyNet"  # {path}' in lines
    assert "curriculum.first_epoch = 1  # default" in lines


def test_a_config_that_extends_itself_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.json", {"extends": "b.json"})
    path = write(tmp_path / "b.json", {"extends": "a.json"})
    with pytest.raises(ConfigError, match="leads back to itself"):
        toy.parse_args(["-c", str(path)])


@pytest.mark.parametrize("extends", [5, None, {"a": 1}, ["a", 5]])
def test_extends_is_a_path_or_a_list_of_paths(extends: Any, config: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="extends: "):
        toy.parse_args(["-c", str(write(tmp_path / "c.json", config | {"extends": extends}))])


def test_set_of_a_whole_section_comes_before_what_is_in_it(
    config: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    path = write_given(config)
    parser = toy.parse_args(
        ["-c", path, "--lr", "0.5", "--set", 'optimizer={"type":"SGD"}', "--set", "loss.type=CrossEntropyLoss"]
    )
    assert parser["optimizer"] == {"type": "SGD", "args": {"lr": 0.5}}
    sources = origins(parser)
    assert sources["optimizer.type"] == sources["optimizer.args.lr"] == sources["loss.type"] == "command line"
    toy.parse_args(["-c", path, "--set", "optimizer.type=SGD"])
    assert "optimizer.type=SGD: the former args are dropped: {'lr': 0.01}" in caplog.text


# What only the built objects tell.


def test_the_steps_of_one_cycle_must_last(config: dict[str, Any]) -> None:
    args = {"max_lr": 0.01, "total_steps": 11}
    config["lr_scheduler"] = {"type": "OneCycleLR", "interval": "step", "args": args}
    with pytest.raises(ConfigError, match="total_steps: 11, but the run makes 12"):
        train(config)
    config["lr_scheduler"]["args"]["total_steps"] = 12
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
            {"type": "LambdaLR", "interval": "step", "args": {"lr_lambda": "1 / (12 - step)"}},
            "lr_lambda: .* at step = 12: ",
        ),
    ],
)
def test_a_schedule_must_fit_the_run(scheduler: dict[str, Any], reason: str, config: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=reason):
        train(config | {"lr_scheduler": scheduler})


@pytest.mark.parametrize(
    "change",
    [
        {"loss": {"type": "CrossEntropyLoss", "args": {"weight": [1.0, 1.0]}}},
        {"metrics": [{"type": "top_k", "args": {"k": 50}}]},
        {"metrics": ["MeanMetric"]},
    ],
    ids=lambda change: str(change)[:60],
)
def test_losses_and_metrics_that_refuse_a_batch_are_reported_before_the_run(
    change: dict[str, Any], config: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=r"loss or metrics do not take"):
        train(config | change)
    assert not list(Path(config["trainer"]["save_dir"]).glob("*/*"))


def test_metrics_that_are_more_than_a_number_are_taken(config: dict[str, Any]) -> None:
    config["metrics"] = [
        {"type": "MulticlassConfusionMatrix", "args": {"num_classes": 3}},
        {"type": "MulticlassF1Score", "args": {"num_classes": 3, "average": None}, "name": "f1"},
    ]
    train(config)


def test_a_value_to_follow_must_be_one_of_the_run(config: dict[str, Any]) -> None:
    config["data_loader"]["args"]["validation_split"] = 0
    with pytest.raises(ConfigError, match=r"^trainer.monitor: no 'val_loss' in this run; allowed: loss, accuracy, str"):
        train(config)


def test_a_debugging_run_is_not_gone_on_with(config: dict[str, Any]) -> None:
    path = write_given(config)
    debugging = run("-c", path, "--fast-dev-run")
    assert run("-c", path, "--resume-latest") != debugging
