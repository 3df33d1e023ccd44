"""Several models, optimizers and schedules by name: checked with paths, shared out exactly, saved and resumed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import SGD, Adam, AdamW

import toy
from base import Microbatch, param_groups
from helpers import newest, records_of, write_given
from parse_config.layers import ConfigLayers
from parse_config.reference import dotted_paths
from toy_runs import assert_exact_at, parsed, run, small_config, train
from utils import ConfigError
from utils.nested import Models

MODELS = {"first": {"type": "ToyNet", "args": {"dropout": 0.2}}, "second": {"type": "ToyNet", "args": {"width": 4}}}
OPTIMIZERS = {"first": {"type": "Adam", "args": {"lr": 0.01}}, "second": {"type": "SGD", "args": {"lr": 0.1}}}
SCHEDULERS = {
    "first": {"type": "LambdaLR", "args": {"lr_lambda": "0.9 ** epoch"}},
    "second": {"type": "StepLR", "interval": "step", "args": {"step_size": 4}},
}
SECTIONS: dict[str, Any] = {"arch": MODELS, "optimizer": OPTIMIZERS, "lr_scheduler": SCHEDULERS}
CHANGES: dict[str, Any] = SECTIONS | {"data_loader__args__validation_split": 0, "trainer__monitor": "off"}


class Rivals(toy.ToyTrainer):
    """Trains two models, each by its own optimizer, to agree on what is random in the other."""

    model: Models

    def _on_device(self, batches: Iterable[Any]) -> Iterable[Any]:
        return batches

    def _train_step(self, microbatches: list[Microbatch]) -> float:
        [((inputs, targets), num_samples)] = microbatches
        outputs: dict[str, Tensor] = {name: model(inputs) for name, model in self.model.items()}
        total = torch.zeros(())
        for name, other in (("first", "second"), ("second", "first")):
            loss = F.cross_entropy(outputs[name], targets) + F.mse_loss(outputs[name], outputs[other].detach())
            self.optimizer[name].zero_grad()
            loss.backward()
            total = total + loss.detach()
        for optimizer in self.optimizer.values():
            optimizer.step()
        self.train_metrics.update("loss", total, n=num_samples)
        self.train_metrics.update_metrics(outputs["first"], targets, n=num_samples)
        return total.item()


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    """Return the toy's config with two of each."""
    return small_config(tmp_path / "saved", **CHANGES)


def refusal(config: dict[str, Any], **changes: Any) -> list[str]:
    """Return why `config`, with changes, is refused."""
    with pytest.raises(ConfigError) as caught:
        parsed(config, **changes)
    return caught.value.problems


def test_several_are_built_by_name_and_each_optimizer_has_the_model_of_its_name(config: dict[str, Any]) -> None:
    parser = parsed(config)
    models = parser.init_obj("arch")
    assert isinstance(models, Models)
    assert [name for name, _ in models.named_parameters()][::6] == ["first.hidden.weight", "second.hidden.weight"]
    optimizers = parser.init_obj("optimizer", params=param_groups(models, parser["optimizer"]))
    assert {name: type(one) for name, one in optimizers.items()} == {"first": Adam, "second": SGD}
    for name, optimizer in optimizers.items():
        assert [*map(id, optimizer.param_groups[0]["params"])] == [*map(id, models[name].parameters())]
    schedulers = parser.init_obj("lr_scheduler", optimizer=optimizers)
    assert all(schedulers[name].optimizer is optimizers[name] for name in SCHEDULERS)
    with pytest.raises(ConfigError, match=r"arch: there are several models \(first, second\)"):
        models(torch.zeros(2, 4))


def test_params_divide_the_weights_of_one_model_and_groups_divide_them_further() -> None:
    model = toy.ToyNet()
    groups = [{"match": "head.bias", "lr": 0.5}]
    sections = {
        "matrices": {"type": "SGD", "params": ["*.weight"], "args": {}},
        "rest": {"type": "AdamW", "params": "*.bias", "args": {"params": groups}, "no_decay": True},
    }
    parser = parsed(toy.CONFIG | {"optimizer": sections, "lr_scheduler": None})
    built = parser.init_obj("optimizer", params=param_groups(model, parser["optimizer"]))
    assert [type(one) for one in built.values()] == [SGD, AdamW]
    assert [len(group["params"]) for group in built["matrices"].param_groups] == [3]
    bias, others = built["rest"].param_groups
    assert (bias["params"], bias["lr"], bias["weight_decay"]) == ([model.head.bias], 0.5, 0.0)
    assert (len(others["params"]), others["weight_decay"]) == (2, 0.0)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"optimizer__frist": {"type": "SGD"}, "lr_scheduler__frist": SCHEDULERS["first"]}, None),
        ({"optimizer__first__typ": "SGD"}, "optimizer.first.typ: unknown key; did you mean 'type'?"),
        ({"optimizer__first__type": "Adm"}, "optimizer.first.type: unknown type 'Adm'; did you mean 'Adam'?"),
        ({"optimizer__first": "Adam"}, "optimizer.first: Input should be a valid dictionary or instance of"),
        ({"optimizer__second__args__lrr": 1}, "optimizer.second.args.lrr: unknown argument of SGD; did you mean 'lr'?"),
        (
            {"optimizer__args__lr": 1},
            "optimizer.args: there are several sections; give it in each, as in optimizer.fir",
        ),
        ({"optimizer__type": "Adam"}, "optimizer.type: there are several sections; give it in each, as in optimizer.f"),
        ({"optimizer": {"typ": "Adam", "args": {"lr": 1}}}, "optimizer.typ: unknown key; did you mean 'type'?"),
        ({"optimizer": {"args": {"lr": 1}}}, "optimizer.type: missing"),
        ({"optimizer": {"type": "Adam"}}, "lr_scheduler: there is one optimizer"),
        (
            {"lr_scheduler": {"type": "StepLR", "args": {"step_size": 1}}},
            "lr_scheduler: there are several of optimizer; g",
        ),
        (
            {"lr_scheduler__frist": SCHEDULERS["first"]},
            "lr_scheduler.frist: there is no optimizer of this name; did you",
        ),
        ({"arch__items": {"type": "ToyNet"}}, "arch.items: cannot be the name of a section"),
        ({"arch__a-b": {"type": "ToyNet"}}, "arch.a-b: cannot be the name of a section"),
        ({"loss": {"first": {"type": "toy_loss"}}}, "loss.first: unknown key"),
        ({"lr_scheduler__second__args__step_size": 0}, "lr_scheduler.second.args: StepLR fails at 1"),
        ({"optimizer__first__args__lr": -1.0}, "optimizer.first.args: Adam refuses them: Invalid learning rate"),
    ],
    ids=str,
)
def test_a_mistake_is_reported_with_its_path(
    changes: dict[str, Any], problem: str | None, config: dict[str, Any]
) -> None:
    if problem is None:
        parsed(config, **changes)
    else:
        found = refusal(config, **changes)
        assert any(line.startswith(problem) for line in found), found
        assert len(found) <= 3, found


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"optimizer__first__params": "frist.*"}, r"optimizer.first.params: no weight matches 'frist.\*'; did you"),
        (
            {"optimizer__second__params": "*"},
            "optimizer.second.params: first.hidden.weight is a weight of optimizer.fir",
        ),
        ({"optimizer__first__params": "first.h*"}, r"optimizer: none trains first.norm.weight \(2 such\)"),
        (
            {"optimizer__first__args__params": [{"match": "x*"}]},
            r"optimizer.first.args.params\[0\].match: 'x\*' matches",
        ),
        ({"data_loader__args__validation_split": 6}, r"arch: there are several models \(first, second\)"),
    ],
    ids=str,
)
def test_what_only_the_built_objects_show_is_refused_before_the_run(
    changes: dict[str, Any], problem: str, config: dict[str, Any]
) -> None:
    paths = [
        arg for key, value in changes.items() for arg in ("--set", f"{key.replace('__', '.')}={json.dumps(value)}")
    ]
    with pytest.raises(ConfigError, match=problem):
        train(config, *paths, trainer=Rivals)
    assert not list(Path(config["trainer"]["save_dir"]).glob("*/*"))


def test_a_config_that_extends_one_of_several_changes_one_of_them_and_completion_knows_their_paths() -> None:
    layers = ConfigLayers(toy.CONFIG | SECTIONS)
    layers.add({"optimizer": {"second": {"type": "Adam", "args": {"lr": 0.5}}}}, "child")
    assert layers.config["optimizer"] == OPTIMIZERS | {"second": {"type": "Adam", "args": {"lr": 0.5}}}
    assert {"optimizer.second.args.lr", "arch.first.args.width"} <= set(dotted_paths(toy.SLOTS, layers.config))


def test_a_run_of_several_resumes_to_the_bit_and_its_checkpoint_holds_each(tmp_path: Path) -> None:
    run_dir = assert_exact_at([3, 7, 12], tmp_path, Rivals, **CHANGES)
    checkpoint = newest(run_dir)
    assert {"optimizer.first", "optimizer.second", "lr_scheduler.first", "lr_scheduler.second"} <= checkpoint.keys()
    assert "first.head.bias" in checkpoint["model"]
    assert [len(checkpoint[f"optimizer.{name}"]["state"]) for name in OPTIMIZERS] == [6, 0]
    assert checkpoint["lr_scheduler.second"]["last_epoch"] == 14
    assert all("loss" in record for record in records_of(run_dir))


def test_trying_the_step_changes_nothing(config: dict[str, Any]) -> None:
    trainer = toy.build_trainer(parsed(config), Rivals)
    trainer.loop.attach()
    before = {key: value.clone() for key, value in trainer.model.state_dict().items()}
    state = torch.get_rng_state()
    trainer._preflight()
    assert all(torch.equal(value, before[key]) for key, value in trainer.model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(not optimizer.state for optimizer in trainer.optimizer.values())


def test_a_resume_with_another_optimizer_is_refused(config: dict[str, Any]) -> None:
    run_dir = train(config, trainer=Rivals)
    with pytest.raises(Exception, match=r"optimizer.second.args.lr"):
        run("-r", str(run_dir), "--set", "optimizer.second.args.lr=0.2", "--set", "trainer.epochs=3", trainer=Rivals)


def test_check_shows_each_model(config: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    toy.main(toy.parse_args(["-c", write_given(config), "--check"]), Rivals)
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line.startswith("model ")]) == 2
    assert [line.split()[0] for line in lines if "Adam" not in line and "/0" in line] == ["first/0", "second/0"]
