"""ConfigParser builds what the config names, fills in defaults, and reports all mistakes at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import pytest
import torch
from pydantic import Field
from torch import Tensor, nn

import toy
from helpers import epochs_of, newest, write_given
from parse_config import ConfigParser, Options, Slot
from toy_runs import parsed, run, small_config, train
from utils import CheckpointError, ConfigError
from utils.annotations import MAY_CHANGE


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    """Return the toy's config."""
    return small_config(tmp_path / "saved")


def problems(config: dict[str, Any]) -> list[str]:
    """Return what is wrong with `config`."""
    with pytest.raises(ConfigError) as caught:
        parsed(config)
    return caught.value.problems


def test_it_builds_an_optimizer_and_a_scheduler(config: dict[str, Any]) -> None:
    parser = parsed(config, optimizer__args__lr=0.5)
    optimizer = parser.init_obj("optimizer", torch.optim, nn.Linear(1, 1).parameters())
    assert isinstance(optimizer, torch.optim.Adam)
    scheduler = parser.init_obj("lr_scheduler", optimizer=optimizer)
    rates = []
    for _ in range(3):
        rates += scheduler.get_last_lr()
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([0.5 * 0.9**epoch for epoch in range(3)])


def test_a_schedule_is_an_expression_or_a_function_with_its_arguments(config: dict[str, Any]) -> None:
    schedule = {"type": "inverse_decay", "args": {"rate": 0.5, "offset": 1}}
    scheduler = parsed(config, lr_scheduler__args__lr_lambda=schedule).init_obj("lr_scheduler", optimizer=sgd())
    assert scheduler.get_last_lr() == [pytest.approx(1 / 1.5)]


def sgd() -> torch.optim.SGD:
    """Return an optimizer of learning rate 1."""
    return torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)


def test_losses_are_functions_or_classes_of_torch(config: dict[str, Any]) -> None:
    outputs, targets = torch.randn(4, 3), torch.tensor([1, 2, 0, 1])
    by_name = parsed(config).init_obj("loss")
    by_class = parsed(config, loss={"type": "CrossEntropyLoss"}).init_obj("loss")
    assert torch.equal(by_name(outputs, targets), by_class(outputs, targets))
    by_name = parsed(config, loss={"type": "toy_loss", "args": {"smoothing": 0.1}}).init_obj("loss")
    by_class = parsed(config, loss={"type": "CrossEntropyLoss", "args": {"label_smoothing": 0.1}}).init_obj("loss")
    assert torch.equal(by_name(outputs, targets), by_class(outputs, targets))


def test_metrics_have_the_names_of_the_config(config: dict[str, Any]) -> None:
    config["metrics"] = [
        "accuracy",
        {"type": "top_k", "args": {"k": 1}, "name": "top1"},
        {"type": "accuracy", "name": "acc"},
        {"type": "MulticlassF1Score", "args": {"num_classes": 3}},
    ]
    built = parsed(config).init_obj("metrics")
    assert [metric.__name__ for metric in built] == ["accuracy", "top1", "acc", "MulticlassF1Score"]
    assert built[1](torch.eye(3), torch.arange(3)) == 1


def test_a_partial_holds_arguments_and_adds_more(config: dict[str, Any]) -> None:
    make = parsed(config).init_ftn("arch", None, num_classes=7)
    assert make().head.out_features == 7
    assert make().dropout.p == 0.2


def test_a_module_that_the_code_gives_is_looked_in_first_as_in_the_published_template(config: dict[str, Any]) -> None:
    config["arch"]["args"] = {"width": 2}
    assert isinstance(parsed(config).init_obj("arch", toy), toy.ToyNet)
    config["arch"] = {"type": "ToyNet"}
    assert parsed(config).init_obj("arch", toy, 5).hidden.out_features == 5


def test_defaults_are_filled_in_and_the_given_dict_is_left_alone(config: dict[str, Any]) -> None:
    before = repr(config)
    parser = parsed(config)
    assert parser["device"] == "auto"
    assert parser["trainer"]["len_epoch"] is None
    assert repr(config) == before


def test_nothing_is_made_before_the_run_starts(config: dict[str, Any], tmp_path: Path) -> None:
    parser = parsed(config)
    assert list(tmp_path.iterdir()) == []
    parser.make_run_dir()
    parser.start_logging()
    assert sorted(path.name for path in parser.save_dir.iterdir()) == ["config.json", "info.log"]


def test_runs_of_one_second_get_directories_of_their_own(config: dict[str, Any]) -> None:
    parsers = [ConfigParser(config, run_id="same", slots=toy.SLOTS) for _ in range(3)]
    for parser in parsers:
        parser.make_run_dir()
    assert [parser.save_dir.name for parser in parsers] == ["same", "same-2", "same-3"]


def test_flags_and_set_override_keys(config: dict[str, Any]) -> None:
    argv = ["-c", write_given(config), "--learning_rate", "0.5", "-d", "cpu", "--set", "metrics=[]", "--set", "name=x"]
    parser = toy.parse_args(argv)
    assert parser["optimizer"]["args"]["lr"] == 0.5
    assert (parser["device"], parser["metrics"], parser["name"]) == ("cpu", [], "x")


def test_all_mistakes_are_reported_at_once(config: dict[str, Any]) -> None:
    config["optimizer"]["args"]["lrr"] = 1
    config["trainer"]["epoch"] = 3
    config["seed"] = "abc"
    config["metric"] = []
    del config["arch"]
    assert problems(config) == [
        "seed: Input should be a valid integer; got 'abc'",
        "arch: missing",
        "trainer.epoch: unknown key; did you mean 'epochs'?",
        "metric: unknown key; did you mean 'metrics'?",
        "optimizer.args.lrr: unknown argument of Adam; did you mean 'lr'?",
    ]


@pytest.mark.parametrize(
    ("section", "name"),
    [
        ("arch", "nn"),
        ("arch", "BaseModel"),
        ("arch", "__builtins__"),
        ("arch", "os.system"),
        ("loss", "F"),
        ("loss", "Tensor"),
        ("optimizer", "Optimizer"),
        ("optimizer", "lr_scheduler"),
        ("data_loader", "toy"),
        ("data_loader", "BaseDataLoader"),
        ("lr_scheduler", "LRScheduler"),
        ("lr_scheduler", "warnings"),
    ],
)
def test_types_are_confined_to_their_slot(config: dict[str, Any], section: str, name: str) -> None:
    config[section] = {"type": name}
    assert problems(config)[0].startswith(f"{section}.type: unknown type {name!r}")


@pytest.mark.parametrize(("section", "argument"), [("data_loader", "training"), ("lr_scheduler", "optimizer")])
def test_what_the_code_gives_cannot_stand_in_a_config(config: dict[str, Any], section: str, argument: str) -> None:
    config[section]["args"][argument] = 1
    assert f"{section}.args.{argument}: is given by the code and cannot be set in a config" in problems(config)


def test_two_metrics_of_one_name_are_refused(config: dict[str, Any]) -> None:
    config["metrics"] = ["accuracy", {"type": "accuracy"}]
    assert problems(config) == ["metrics: 'accuracy' appears twice; give one of them a \"name\""]


# Sections and keys of one's own.


def test_a_section_of_ones_own_builds_something_and_has_keys_of_its_own(config: dict[str, Any]) -> None:
    assert parsed(config).init_obj("teacher") is None
    config["teacher"] = {"type": "narrow_net", "args": {"width": 3}, "weight": 0.25}
    parser = parsed(config)
    assert parser.init_obj("teacher").hidden.out_features == 3
    section = parser.section("teacher")
    assert isinstance(section, toy.TeacherSection)
    assert section.weight == 0.25
    del config["teacher"]["weight"]
    assert parsed(config).section("teacher").weight == 0.5


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ({"type": "narow_net"}, "teacher.type: unknown type 'narow_net'; did you mean 'narrow_net'?"),
        (
            {"type": "ToyNet", "args": {"widht": 2}},
            "teacher.args.widht: unknown argument of ToyNet; did you mean 'width'?",
        ),
        ({"type": "ToyNet", "weigth": 2.0}, "teacher.weigth: unknown key; did you mean 'weight'?"),
        ({"type": "ToyNet", "weight": -1.0}, "teacher.weight: Input should be greater than or equal to 0; got -1.0"),
        ({"args": {}}, "teacher.type: missing"),
    ],
)
def test_a_section_of_ones_own_is_checked_like_any(
    config: dict[str, Any], section: dict[str, Any], problem: str
) -> None:
    assert problems(config | {"teacher": section}) == [problem]


def test_a_section_needs_one_more_slot(config: dict[str, Any]) -> None:
    config["student"] = {"type": "ToyNet", "args": {"num_classes": 2}}
    assert problems(config)[0].startswith("student: unknown key")
    slots = toy.SLOTS | {"student": toy.SLOTS["arch"]}
    assert ConfigParser(config, slots=slots).init_obj("student").head.out_features == 2


def test_a_section_of_plain_keys_is_a_typed_object(config: dict[str, Any]) -> None:
    assert parsed(config).section("curriculum") == toy.Curriculum(first_epoch=1, note="")
    assert parsed(config)["curriculum"] == {"first_epoch": 1, "note": ""}
    parser = parsed(config, curriculum__first_epoch=4)
    assert parser.section("curriculum").first_epoch == 4
    parser.resolve("curriculum", {"first_epoch": 5})
    assert parser.section("curriculum").first_epoch == parser["curriculum"]["first_epoch"] == 5
    config["curriculum"] = {"first_epoch": 0, "notes": "x"}
    assert problems(config) == [
        "curriculum.first_epoch: Input should be greater than or equal to 1; got 0",
        "curriculum.notes: unknown key; did you mean 'note'?",
    ]


def test_a_section_of_plain_keys_may_have_required_ones_and_sections_in_it(config: dict[str, Any]) -> None:
    class Inner(Options):
        depth: int = Field(default=2, description="how deep")

    class Outer(Options):
        size: int = Field(description="how large")
        inner: Inner | None = Field(default=None, description="more")

    slots = toy.SLOTS | {"outer": Outer}
    with pytest.raises(ConfigError, match=r"^outer: missing$"):
        ConfigParser(config, slots=slots)
    with pytest.raises(ConfigError, match=r"^outer.inner.dept: unknown key; did you mean 'depth'\?$"):
        ConfigParser(config | {"outer": {"size": 1, "inner": {"dept": 1}}}, slots=slots)
    parser = ConfigParser(config | {"outer": {"size": 1, "inner": {}}}, slots=slots)
    assert parser.section("outer").inner.depth == parser["outer"]["inner"]["depth"] == 2


def test_keys_that_begin_with_an_underscore_are_comments(config: dict[str, Any]) -> None:
    config["_comment"] = "why"
    config["optimizer"]["_comment"] = ["more"]
    config["optimizer"]["args"]["_lr"] = 5
    config["metrics"] = [{"type": "top_k", "_why": None}]
    parser = parsed(config)
    assert parser["optimizer"] == {"type": "Adam", "args": {"lr": 0.01}}
    assert "_comment" not in parser.config
    assert parser["metrics"][0].keys() == {"type"}


def test_options_of_ones_own_trainer_are_read_typed_checked_and_overridden(
    config: dict[str, Any], tmp_path: Path
) -> None:
    options = toy.parse_args(["-c", write_given(config), "--set", "trainer.stretch=2.5"]).section("trainer")
    assert isinstance(options, toy.ToyOptions)
    assert (options.stretch, options.loop, options.epochs) == (2.5, "counted", 2)
    config["trainer"] |= {"stretch": -1, "strech": 2}
    assert problems(config) == [
        "trainer.stretch: Input should be greater than 0; got -1",
        "trainer.strech: unknown key; did you mean 'stretch'?",
    ]


def test_a_value_that_ones_own_loop_logs_can_be_followed(config: dict[str, Any]) -> None:
    run_dir = train(config, "--set", "trainer.monitor=max stretched_loss")
    assert newest(run_dir)["monitor"]["best"] == max(record["stretched_loss"] for record in epochs_of(run_dir))
    config["trainer"]["monitor"] = "max streched_loss"
    assert problems(config) == ["trainer.monitor: no metric 'streched_loss'; did you mean 'stretched_loss'?"]


@pytest.mark.parametrize(
    ("change", "is_exact"),
    [
        ("curriculum.note=other", True),
        ("trainer.epochs=3", True),
        ("curriculum.first_epoch=2", False),
        ("trainer.stretch=2", False),
        ("teacher.weight=0.1", False),
    ],
)
def test_keys_of_ones_own_say_whether_a_run_may_go_on_with_another_value(
    config: dict[str, Any], change: str, is_exact: bool
) -> None:
    config["teacher"] = {"type": "ToyNet"}
    run_dir = train(config)
    if is_exact:
        run("-r", str(run_dir), "--set", change)
    else:
        with pytest.raises(CheckpointError, match=f"{change.split('=')[0]}: was "):
            run("-r", str(run_dir), "--set", change)


def test_an_argument_may_be_marked_as_one_that_may_change(config: dict[str, Any], monkeypatch: Any) -> None:
    class Marked(nn.Module):
        def __init__(self, label: Annotated[str, MAY_CHANGE] = "", width: int = 1) -> None:
            super().__init__()

    Marked.__module__ = "toy"
    monkeypatch.setattr(toy, "Marked", Marked, raising=False)
    config["arch"] = {"type": "Marked"}
    paths = parsed(config).marked(MAY_CHANGE)
    assert {"name", "trainer.epochs", "curriculum.note", "arch.args.label", "data_loader.args.num_workers"} <= paths
    assert not {"arch.args.width", "trainer.stretch", "seed"} & paths


# What the data says.


def test_what_the_data_says_goes_to_whatever_takes_an_argument_of_that_name(config: dict[str, Any]) -> None:
    config["data_loader"]["type"] = "CountingLoader"
    config["arch"] = {"type": "PriorNet"}
    config["loss"] = "balanced_loss"
    parser = parsed(config)
    loader = parser.init_obj("data_loader")
    counts = parser.facts["class_counts"]
    assert counts.sum() == loader.n_samples == 28
    assert torch.equal(parser.init_obj("arch").head.bias, (counts / 28).log())
    outputs, targets = torch.randn(5, 3), torch.tensor([0, 1, 2, 1, 0])
    expected = nn.functional.cross_entropy(outputs, targets, weight=1 / counts)
    assert torch.equal(parser.init_obj("loss")(outputs, targets), expected)


def test_what_the_data_says_is_that_of_the_training_split_in_test_too(config: dict[str, Any]) -> None:
    config["data_loader"]["type"] = "CountingLoader"
    config["loss"] = "balanced_loss"
    run_dir = train(config)
    facts = newest(run_dir)["facts"]
    assert facts["class_counts"].sum() == 28  # the test split has 34
    result = toy.evaluate(["-r", str(run_dir)])
    parser = parsed(config)
    test_split = parser.init_obj("data_loader", training=False)
    model = toy.ToyNet(dropout=0.2)
    model.load_state_dict(newest(run_dir)["model"])
    with torch.no_grad():
        losses = [
            len(targets) * toy.balanced_loss(model.eval()(inputs), targets, facts["class_counts"]).item()
            for inputs, targets in test_split
        ]
    assert result["loss"] == pytest.approx(sum(losses) / 34)


def test_an_argument_that_the_data_does_not_give_is_reported_with_what_it_offers(config: dict[str, Any]) -> None:
    config["loss"] = "balanced_loss"
    assert problems(config)[0].startswith("loss.args.class_counts: missing; balanced_loss needs it")

    def uneven_loss(outputs: Tensor, targets: Tensor, num_rows: int) -> Tensor:
        return outputs.sum()

    uneven_loss.__module__ = "toy"
    config["data_loader"]["type"] = "CountingLoader"
    config["loss"] = "uneven_loss"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toy, "uneven_loss", uneven_loss, raising=False)
        parser = parsed(config)
        parser.init_obj("data_loader")
        message = r"^loss.args.num_rows: missing; uneven_loss needs it, the data offers class_counts$"
        with pytest.raises(ConfigError, match=message):
            parser.init_obj("loss")


def test_what_the_config_gives_goes_before_what_the_data_says(config: dict[str, Any]) -> None:
    config["data_loader"]["type"] = "CountingLoader"
    config["arch"] = {"type": "ToyNet", "args": {"width": 5}}
    parser = parsed(config)
    parser.facts = {"width": 7, "unused": 1}
    assert parser.init_obj("arch").hidden.out_features == 5
    del config["arch"]["args"]
    parser = parsed(config)
    parser.facts = {"width": 7}
    assert parser.init_obj("arch").hidden.out_features == 7


def test_a_factory_builds_a_model_and_trains(config: dict[str, Any]) -> None:
    config["arch"] = {"type": "narrow_net", "args": {"width": 3}}
    assert newest(train(config))["model"]["hidden.weight"].shape == (3, 4)


def test_what_auto_resolved_to_is_in_the_config_of_the_run_and_in_a_resumed_one(config: dict[str, Any]) -> None:
    config["data_loader"] = {"type": "TensorLoader", "args": {"batch_size": 5, "validation_split": 6}}
    run_dir = train(config)
    for _ in range(2):
        saved = json.loads((run_dir / "config.json").read_text())
        assert saved["data_loader"]["args"]["source"] == "generated"
        run("-r", str(run_dir))


def test_the_slots_of_a_project_are_those_of_its_slots_py(config: dict[str, Any], monkeypatch: Any) -> None:
    import sys
    from types import ModuleType

    slots = ModuleType("slots")
    slots.SLOTS = toy.SLOTS | {"extra": Slot(("toy",), base=nn.Module)}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "slots", slots)
    assert ConfigParser(config | {"extra": {"type": "ToyNet"}})["extra"] == {"type": "ToyNet"}
