"""What a trainer holds is saved and restored, and a run that could not go on exactly is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import toy
from base.resume import parts_of
from checkpoint.file import load_checkpoint, serialise
from checkpoint.upgrade import FORMAT, upgrade
from faults import assert_same_run, the_run
from helpers import assert_equal, newest, records_of, write_given
from toy import PlainTrainer, ToyTrainer
from toy_runs import assert_exact_at, run, small_config, stopped_at, train
from utils import CheckpointError

pytestmark = pytest.mark.e2e  # whole runs


class Counter:
    """Something of one's own that has a state."""

    def __init__(self) -> None:
        self.count = 0

    def state_dict(self) -> dict[str, int]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.count = state["count"]


class Holder:
    """What a trainer may hold."""

    def __init__(self) -> None:
        self.model = nn.Linear(2, 2)
        self.same_model = self.model
        self.loss = nn.MSELoss()  # without a state
        self.weighted_loss = nn.CrossEntropyLoss(weight=torch.ones(2))
        self.optimizers = {"a": torch.optim.SGD(self.model.parameters(), lr=1.0), "b": None}
        self.heads = [nn.Linear(1, 1), "text", nn.ReLU()]
        self.pair = (Counter(), 3)
        self.optimizer = self.optimizers["a"]
        self.number = 5
        self.nested = {"deep": {"deeper": Counter()}}
        self.centre = torch.zeros(3)


def test_parts_are_all_that_have_a_state_each_once() -> None:
    holder = Holder()
    parts = parts_of(holder)
    assert list(parts) == ["model", "optimizer", "weighted_loss", "heads.0", "pair.0", "centre"]
    assert parts["optimizer"] is holder.optimizers["a"]
    assert parts["heads.0"] is holder.heads[0]


class RichTrainer(ToyTrainer):
    """Holds more than the engine knows of, and changes all of it in each step."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.second_model = nn.Linear(3, 3)
        self.optimizers = {"second": torch.optim.Adam(self.second_model.parameters(), lr=0.1)}
        self.schedules = [torch.optim.lr_scheduler.ExponentialLR(self.optimizers["second"], 0.9)]
        self.counters = (Counter(), Counter())
        self.centre = torch.zeros(3)

    def _train_step(self, microbatches: Any) -> float:
        loss = super()._train_step(microbatches)
        self.optimizers["second"].zero_grad()
        self.second_model(torch.randn(4, 3)).square().mean().backward()
        self.optimizers["second"].step()
        self.schedules[0].step()
        self.criterion.weight.mul_(1.01)  # type: ignore[attr-defined]
        self.counters[1].count += 2
        self.centre = 0.9 * self.centre + 0.1 * torch.randn(3)
        return loss


def rich_config(directory: Path, **changes: Any) -> dict[str, Any]:
    """Return a config whose loss has a buffer, and with a teacher."""
    loss = {"type": "CrossEntropyLoss", "args": {"weight": [1.0, 2.0, 0.5]}}
    return small_config(directory, loss=loss, teacher={"type": "ToyNet"}, **changes)


def test_whatever_a_trainer_holds_is_saved_and_goes_on_to_the_bit(tmp_path: Path) -> None:
    config = rich_config(tmp_path)
    changes = {"loss": config["loss"], "teacher": config["teacher"]}
    expected = assert_exact_at([1, 6, 8], tmp_path, RichTrainer, **changes)
    content = newest(expected)
    extra = {"criterion", "second_model", "optimizers.second", "schedules.0", "counters.0", "counters.1"}
    extra |= {"centre", "teacher"}
    assert extra <= content.keys()
    assert content["counters.1"] == {"count": 24}
    assert content["criterion"]["weight"].tolist() == pytest.approx([1.01**12, 2 * 1.01**12, 0.5 * 1.01**12], rel=1e-5)


def test_a_parameter_that_the_trainer_itself_holds_is_saved(tmp_path: Path) -> None:
    class Weighted(PlainTrainer):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.log_variance = nn.Parameter(torch.zeros(()))  # learned beside the model, as in multi-task losses
            self.optimizer.add_param_group({"params": [self.log_variance]})
            criterion = self.criterion
            self.criterion = lambda outputs, targets: (
                criterion(outputs, targets) * (-self.log_variance).exp() + self.log_variance
            )

    assert_exact_at([3], tmp_path, Weighted, lr_scheduler=None)


def test_a_plain_number_is_saved_where_the_trainer_adds_it(tmp_path: Path) -> None:
    class Numbered(PlainTrainer):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.count = 0

        def _before_epoch(self, epoch: int) -> None:
            self.count += 1

        def _stateful(self) -> dict[str, Any]:
            counter = Counter()
            counter.count = self.count
            load = counter.load_state_dict

            def load_state_dict(state: dict[str, int]) -> None:
                load(state)
                self.count = counter.count

            counter.load_state_dict = load_state_dict  # type: ignore[method-assign]
            return super()._stateful() | {"count": counter}

    run_dir = train(small_config(tmp_path / "saved"), trainer=Numbered)
    assert newest(run_dir)["count"] == {"count": 2}
    run("-r", str(run_dir), "--set", "trainer.epochs=5", trainer=Numbered)
    assert newest(run_dir)["count"] == {"count": 5}


def test_a_part_that_the_checkpoint_lacks_is_an_error(tmp_path: Path) -> None:
    run_dir = train(small_config(tmp_path / "saved"))
    message = "latest.pth: second_model: missing or of other keys than this run's"
    with pytest.raises(CheckpointError, match=message):
        run("-r", str(run_dir / "latest.pth"), "--set", "trainer.epochs=3", trainer=RichTrainer)


def as_format_1(path: Path) -> None:
    """Rewrite a checkpoint as an earlier version would have."""
    state = load_checkpoint(path)
    del state["facts"], state["train_metrics"]["is_open"], state["valid_metrics"]
    state.pop("teacher", None)
    path.write_bytes(serialise(state | {"format": 1}))
    assert FORMAT != 1


def test_a_checkpoint_of_format_1_goes_on_with_the_parts_it_has(tmp_path: Path) -> None:
    expected = train(small_config(tmp_path / "whole", trainer__channels_last=False))
    config = small_config(tmp_path / "stopped", trainer__channels_last=False)
    with stopped_at(3):
        train(config)
    as_format_1(the_run(config) / "latest.pth")
    assert load_checkpoint(the_run(config) / "latest.pth")["train_metrics"]["is_open"] is True
    run("-r", str(the_run(config) / "latest.pth"))
    assert_same_run(expected, the_run(config))


@pytest.mark.parametrize("state", [{"format": 1}, {"format": 1, "train_metrics": 5, "position": []}, {"format": 2}])
def test_an_old_checkpoint_that_is_malformed_is_left_to_the_checks_of_today(state: dict[str, Any]) -> None:
    assert upgrade(dict(state)).items() >= state.items()


# What must be equal to go on exactly.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data_loader.args.batch_size=7", "data_loader.args.batch_size: was 5, is 7"),
        ("data_loader.args.noise=0.2", "data_loader.args.noise: was None, is 0.2"),
        ("seed=1", "seed: was 0, is 1"),
        ("trainer.stretch=2", "trainer.stretch: was 1.0, is 2"),
        ("trainer.deterministic=true", "trainer.deterministic: was False, is True"),
        ("data_loader.args.num_samples=40", "data: was '"),
    ],
)
def test_what_decides_about_the_bits_cannot_change_unless_that_is_allowed(
    change: str, message: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = small_config(tmp_path / "saved")
    with stopped_at(7):
        train(config)
    run_dir = the_run(config)
    before = records_of(run_dir)
    with pytest.raises(CheckpointError) as caught:
        run("-r", str(run_dir), "--set", change)
    assert "cannot resume exactly:\n" in str(caught.value)
    assert message in str(caught.value)
    assert "--allow-inexact resumes anyway" in str(caught.value)
    assert records_of(run_dir) == before
    run("-r", str(run_dir), "--set", change, "--allow-inexact")
    assert f"not an exact resume: {message}" in caplog.text
    torch.use_deterministic_algorithms(False)


def test_the_number_of_threads_is_checked_too(tmp_path: Path) -> None:
    torch.set_num_threads(2)
    config = small_config(tmp_path / "saved")
    with stopped_at(2):
        train(config)
    torch.set_num_threads(1)
    with pytest.raises(CheckpointError, match="threads: was 2, is 1"):
        run("-r", str(the_run(config)))


@pytest.mark.parametrize(("processor", "warns"), [("Z80", True), (None, False)])
def test_a_run_that_moves_to_another_processor_goes_on_with_a_warning(
    processor: str | None, warns: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = small_config(tmp_path / "saved")
    with stopped_at(2):
        train(config)
    path = the_run(config) / "latest.pth"
    state = load_checkpoint(path)
    if processor is None:  # a checkpoint of before this was recorded
        del state["environment"]["processor"]
    else:
        state["environment"]["processor"] = processor
    path.write_bytes(serialise(state))
    run("-r", str(the_run(config)))
    assert ("processor: was 'Z80', is " in caplog.text) == warns


@pytest.mark.parametrize(
    "change",
    [
        "optimizer.args.lr=1",
        "arch.args.dropout=0.5",
        'lr_scheduler.args.lr_lambda="0.5 ** epoch"',
        "lr_scheduler=null",
        "trainer.monitor=max val_accuracy",
        'teacher={"type": "ToyNet"}',
    ],
)
def test_what_a_state_belongs_to_cannot_change_even_if_inexact_is_allowed(change: str, tmp_path: Path) -> None:
    run_dir = train(small_config(tmp_path / "saved"))
    with pytest.raises(CheckpointError, match=f"{change.split('=')[0]}.*: was (.|\n)*-c with -r starts a new run"):
        run("-r", str(run_dir), "--set", change, "--allow-inexact")


@pytest.mark.parametrize(
    "changes",
    [("trainer.epochs=3",), ("name=other", "trainer.save_period=2"), ("data_loader.args.num_workers=1",)],
    ids=" ".join,
)
def test_what_changes_no_bit_may_change(changes: tuple[str, ...], tmp_path: Path) -> None:
    config = small_config(tmp_path / "saved")
    with stopped_at(8):
        train(config)
    run("-r", str(the_run(config)), *(word for change in changes for word in ("--set", change)))
    expected = newest(train(small_config(tmp_path / "whole", trainer__epochs=3 if "epochs" in changes[0] else 2)))
    for key in ("model", "optimizer", "rng", "position"):
        assert_equal(expected[key], newest(the_run(config))[key], key)


# A new run from the weights of another.


def test_fine_tuning_starts_a_new_run_from_the_weights(tmp_path: Path) -> None:
    config = small_config(tmp_path / "saved", trainer__monitor="off")
    first = train(config)
    second = train(config, "-r", str(first), "--lr", "0", "--set", "trainer.epochs=1")
    assert second != first
    assert newest(second)["position"]["global_step"] == 6
    trained = {name: value for name, value in newest(second)["model"].items() if not name.startswith("norm.")}
    assert_equal({name: newest(first)["model"][name] for name in trained}, trained)


def test_weights_that_do_not_fit_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    config = small_config(tmp_path / "saved")
    first = train(config)
    runs = sorted(first.parent.iterdir())
    with pytest.raises(CheckpointError, match=r"does not fit the model: .*head.bias is torch.float32 \[3\]"):
        train(config, "-r", str(first), "--set", "arch.args.num_classes=4")
    assert sorted(first.parent.iterdir()) == runs


@pytest.mark.parametrize("which", ["fitting", "all"])
def test_weights_that_fit_are_taken_where_the_config_says_so(
    which: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = small_config(tmp_path / "saved")
    first = train(config)
    args = ("-c", write_given(config), "-r", str(first), "--set", "arch.args.num_classes=4")
    parser = toy.parse_args([*args, "--set", f"trainer.init_weights={which}"])
    if which == "all":
        with pytest.raises(CheckpointError, match="does not fit the model"):
            toy.build_trainer(parser)
        return
    weights, old = toy.build_trainer(parser).model.state_dict(), newest(first)["model"]
    taken = {name for name, value in weights.items() if name in old and torch.equal(value, old[name])}
    assert taken >= weights.keys() - {"head.weight", "head.bias"}
    assert weights["head.bias"].shape == (4,)
    assert "head.bias" in caplog.text


def test_weights_none_of_which_fits_are_refused(tmp_path: Path) -> None:
    config = small_config(tmp_path / "saved")
    first = train(config)
    other = small_config(tmp_path / "other", arch={"type": "LSTM", "args": {}}, trainer__init_weights="fitting")

    class LSTM(nn.LSTM):
        def __init__(self) -> None:
            super().__init__(2, 2)

    LSTM.__module__ = "toy"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toy, "LSTM", LSTM, raising=False)
        parser = toy.parse_args(["-c", write_given(other), "-r", str(first)])
        with pytest.raises(CheckpointError, match="of the model's 4 tensors"):
            toy.build_trainer(parser)


def test_adapt_is_for_new_models_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir = train(small_config(tmp_path / "saved"))
    mean = newest(run_dir)["model"]["mean"]
    assert mean.any()
    monkeypatch.setattr(toy.ToyNet, "adapt", lambda self, loader: pytest.fail("adapted again"))
    run("-r", str(run_dir), "--set", "trainer.epochs=3")
    assert torch.equal(newest(run_dir)["model"]["mean"], mean)
