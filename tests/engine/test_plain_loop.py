"""Trainers in the way of 2020, which simply iterate a loader: reshuffled, counted, saved, stopped and resumed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, WeightedRandomSampler

import toy
from base import BaseDataLoader
from checkpoint.file import load_checkpoint
from faults import assert_same_run, curves_of, the_run
from helpers import epochs_of, newest, write_given
from toy import PlainTrainer
from toy_runs import assert_exact_at, parsed, run, small_config, stopped_at, train
from utils import Stopped, exit_on_user_error, inf_loop

pytestmark = pytest.mark.e2e  # whole runs

STEPS = range(1, 13)  # two epochs of six
LAST = (6, 12)  # of an epoch
INNER = [step for step in STEPS if step not in LAST]


class Recorder(PlainTrainer):
    """Notes what it trains on."""

    seen: list[list[int]]

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        self.seen = getattr(self, "seen", [])
        targets: list[int] = []
        self.seen.append(targets)
        criterion = self.criterion

        def noting(output: Tensor, target: Tensor) -> Tensor:
            targets.extend((output.shape[0], *target.tolist()) if self.model.training else ())
            return criterion(output, target)

        self.criterion = noting
        log = super()._train_epoch(epoch)
        self.criterion = criterion
        return log


def plain_config(directory: Path, **changes: Any) -> dict[str, Any]:
    """Return the toy's config with the plain loop."""
    return small_config(directory, **{"trainer__loop": "plain", "trainer__log_every_steps": 50, **changes})


def test_each_epoch_has_an_order_of_its_own_which_the_seed_decides(tmp_path: Path) -> None:
    orders: list[list[list[int]]] = []
    for seed in (0, 0, 1):
        trainer = toy.main(parsed(plain_config(tmp_path, seed=seed, trainer__epochs=3)), Recorder)
        assert isinstance(trainer, Recorder)
        orders.append(trainer.seen)
    assert orders[0] == orders[1]
    assert len({str(order) for order in (*orders[0], *orders[2])}) == 6
    loader = parsed(plain_config(tmp_path)).init_obj("data_loader")
    for epoch, seen in enumerate(orders[0], start=1):
        batches = [targets.tolist() for [((_, targets), _)] in loader.epoch_steps(epoch, seed=0)]
        assert seen == [value for batch in batches for value in (len(batch), *batch)]


def test_steps_are_counted_and_the_scheduler_is_in_the_checkpoint(tmp_path: Path) -> None:
    run_dir = train(plain_config(tmp_path / "saved"))
    content = newest(run_dir)
    assert content["position"] == {"epoch": 3, "step_in_epoch": 0, "global_step": 12}
    assert content["lr_scheduler"]["last_epoch"] == 2
    assert [record["global_step"] for record in epochs_of(run_dir)] == [6, 12]
    curves = curves_of(run_dir)
    assert [step for step, _ in curves["loss/train"]] == list(range(12))
    assert [step for step, _ in curves["loss/valid"]] == [0, 1, 2, 3]  # 2 batches an epoch, as that loop counts them


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"data_loader__type": "TensorLoader", "trainer__save_every_steps": 2},
        {
            **{"metrics": [], "trainer__monitor": "off", "lr_scheduler": None},
            **{"data_loader__args__validation_split": 0, "data_loader__args__num_samples": 28},
        },
    ],
    ids=["samples", "tensors, saved every other step", "no validation, metric or schedule"],
)
def test_a_stop_at_every_step_is_exact(changes: dict[str, Any], tmp_path: Path) -> None:
    assert_exact_at(INNER if not changes else (4, 8), tmp_path, trainer__loop="plain", **changes)


@pytest.mark.parametrize("step", LAST)
def test_a_stop_after_the_last_step_of_an_epoch_is_exact(step: int, tmp_path: Path) -> None:
    assert_exact_at([step], tmp_path, trainer__loop="plain")


def test_a_stop_with_workers_is_exact(tmp_path: Path) -> None:
    assert_exact_at([9], tmp_path, trainer__loop="plain", data_loader__args__num_workers=1)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_the_midst_of_a_step_stops_at_the_next_batch(number: int, code: int, tmp_path: Path) -> None:
    class Interrupted(PlainTrainer):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.optimizer.register_step_pre_hook(self._interrupt)

        def _interrupt(self, *_: Any) -> None:
            if self.position.global_step == 2:  # the third step is under way
                os.kill(os.getpid(), number)

    config = plain_config(tmp_path / "saved")
    with pytest.raises(SystemExit) as caught, exit_on_user_error():
        train(config, trainer=Interrupted)
    assert caught.value.code == code
    assert newest(the_run(config))["position"] == {"epoch": 1, "step_in_epoch": 3, "global_step": 3}
    assert load_checkpoint(the_run(config) / "latest.pth")["optimizer"]["state"][0]["step"] == 3


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("precision", "bf16"),
        ("grad_accum_steps", 3),
        ("ema_decay", 0.9),
        ("max_grad_norm", 1.0),
        ("len_epoch", 4),
        ("cuda_graph", True),
        ("profile", True),
        ("device_resident", True),
        ("log_every_steps", 2),
        ("max_skipped_steps", 3),
    ],
)
@pytest.mark.parametrize("is_followed", [False, True])
def test_options_that_a_loop_of_its_own_ignores_are_warned_of(
    option: str, value: Any, is_followed: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Own(PlainTrainer):
        LOOP_OPTIONS = frozenset({option} if is_followed else ())

        def _train_epoch(self, epoch: int) -> dict[str, float]:
            return {}

    class Grandchild(Own): ...

    config = plain_config(tmp_path, **{f"trainer__{option}": value})
    toy.build_trainer(parsed(config), Grandchild).loop.warn_of_what_is_ignored()
    warning = (
        f"trainer.{option}: {value!r} has no effect: Own._train_epoch is a loop of its own; "
        f"if it follows this option, name it in Own.LOOP_OPTIONS"
    )
    assert (warning in caplog.messages) is not is_followed
    assert len(caplog.messages) == (not is_followed)


def test_a_loop_that_says_what_it_follows_does_not_speak_for_one_that_overrides_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Override(toy.ToyTrainer):
        def _train_epoch(self, epoch: int) -> dict[str, float]:
            return {}

    config = parsed(small_config(tmp_path, trainer__grad_accum_steps=2))
    toy.build_trainer(config, toy.ToyTrainer).loop.warn_of_what_is_ignored()
    assert caplog.messages == []
    toy.build_trainer(config, Override).loop.warn_of_what_is_ignored()
    assert "trainer.grad_accum_steps: 2 has no effect: Override._train_epoch is a loop of its own" in caplog.text


@pytest.mark.parametrize("name", ["_save_checkpoint", "_resume_checkpoint"])
def test_methods_of_2020_that_are_not_called_are_warned_of(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = type("Own", (PlainTrainer,), {name: lambda self, *args: None})
    toy.build_trainer(parsed(plain_config(tmp_path)), own).loop.warn_of_what_is_ignored()
    assert caplog.messages == [
        f"Own.{name} is not called: every part that the trainer holds is saved and restored; add further state in "
        f"_stateful"
    ]


def test_an_iterator_whose_place_cannot_be_saved_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer: Any = toy.build_trainer(parsed(plain_config(tmp_path)))
    trainer.endless = inf_loop([1])
    trainer.batches = iter([1, 2])
    trainer.loop.warn_of_what_is_ignored()
    [message] = caplog.messages
    assert message.startswith("PlainTrainer.batches is an iterator, and where it is cannot be saved: a resumed run")


def test_fast_dev_run_limits_training_and_validation_to_a_batch(tmp_path: Path) -> None:
    run_dir = run("-c", write_given(plain_config(tmp_path / "saved")), "--fast-dev-run")
    assert newest(run_dir)["position"] == {"epoch": 2, "step_in_epoch": 0, "global_step": 1}
    assert [len(curves_of(run_dir)[f"loss/{mode}"]) for mode in ("train", "valid")] == [1, 1]


@pytest.mark.parametrize("loop", ["plain", "counted"])
def test_limited_and_overfitted_epochs_are_those_of_any_loop(loop: str, tmp_path: Path) -> None:
    path = write_given(small_config(tmp_path / "saved", trainer__loop=loop))
    limited = run("-c", path, "--limit-batches", "4")
    assert newest(limited)["position"]["global_step"] == 8


@pytest.mark.parametrize("loop", ["plain", "counted"])
@pytest.mark.parametrize("data", ["SampleLoader", "TensorLoader"])
def test_overfitting_trains_and_validates_on_the_same_few_batches(data: str, loop: str, tmp_path: Path) -> None:
    config = small_config(tmp_path / "saved", trainer__loop=loop, data_loader__type=data)
    trainer: Any = toy.main(toy.parse_args(["-c", write_given(config), "--overfit-batches", "2"]))
    assert trainer.position.global_step == 4
    training = [batch for [(batch, _)] in trainer.data_loader.epoch_steps(1, seed=0)]
    validation = list(trainer.valid_data_loader)
    assert [targets.tolist() for _, targets in validation] == [targets.tolist() for _, targets in training]
    assert [len(targets) for _, targets in validation] == [5, 5]


def test_a_loop_that_leaves_the_loader_early_begins_the_next_epoch_all_the_same(tmp_path: Path) -> None:
    class Hurried(PlainTrainer):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.num_calls = 0

        def _train_epoch(self, epoch: int) -> dict[str, float]:
            self.model.train()
            for data, target in islice(self.data_loader, 3 - self.position.step_in_epoch):
                self.optimizer.zero_grad()
                self.criterion(self.model(data), target).backward()
                self.optimizer.step()
            return {"val_loss": float(epoch)}

    expected = assert_exact_at([2, 3, 4], tmp_path, Hurried, trainer__monitor="off")
    assert newest(expected)["position"]["global_step"] == 6


def test_a_second_pass_in_an_epoch_comes_whole_after_a_stop_in_the_first(tmp_path: Path) -> None:
    class Twice(PlainTrainer):
        def _train_epoch(self, epoch: int) -> dict[str, float]:
            log = super()._train_epoch(epoch)
            self.model.train()
            for data, target in self.data_loader:
                self.optimizer.zero_grad()
                self.criterion(self.model(data), target).backward()
                self.optimizer.step()
            return log

    expected = assert_exact_at([2, 9], tmp_path, Twice)
    assert newest(expected)["position"]["global_step"] == 24


# Two optimizers that step for each batch.


class GanTrainer(PlainTrainer):
    """A generator and a discriminator, in a dict; the first optimizer is that of the generator."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.nets = {"critic": nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))}
        self.critic_optimizer = torch.optim.SGD(self.nets["critic"].parameters(), lr=0.1, momentum=0.9)
        self.schedules = [torch.optim.lr_scheduler.StepLR(self.critic_optimizer, 1, 0.5)]

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        self.model.train()
        critic, total = self.nets["critic"], 0.0
        for data, _ in self.data_loader:
            fake, real = self.model(data), torch.randn(len(data), 3)
            self.critic_optimizer.zero_grad()
            critic_loss = critic(fake.detach()).mean() - critic(real).mean()
            critic_loss.backward()
            self.critic_optimizer.step()
            self.optimizer.zero_grad()
            loss = -critic(fake).mean()
            loss.backward()
            self.optimizer.step()
            total += loss.item()
        self.schedules[0].step()
        return {"val_loss": 1.0}


def test_a_gan_is_saved_between_batches_alone_and_goes_on_to_the_bit(tmp_path: Path) -> None:
    changes = {"trainer__save_every_steps": 1, "trainer__tensorboard": False}
    expected = assert_exact_at([1, 6, 8], tmp_path, GanTrainer, **changes)
    content = newest(expected)
    assert content["position"]["global_step"] == 12
    assert {"model", "optimizer", "nets.critic", "critic_optimizer", "schedules.0"} <= content.keys()
    for path in expected.glob("*.pth"):
        state = load_checkpoint(path)
        num_steps = state["position"]["global_step"]
        assert num_steps == 0 or state["optimizer"]["state"][0]["step"] == num_steps


# Endless loaders.


endless = partial(PlainTrainer, len_epoch=3)  # epochs of a number of batches: as in 2020, one more than it says


def test_epochs_of_an_endless_loader_go_on_from_one_to_the_next(tmp_path: Path) -> None:
    trainer = toy.main(parsed(plain_config(tmp_path, trainer__epochs=3)), partial(Recorder, len_epoch=3))
    assert isinstance(trainer, Recorder)
    loader = parsed(plain_config(tmp_path)).init_obj("data_loader")
    passes = [step for epoch in (1, 2) for step in loader.epoch_steps(epoch, seed=0)]
    batches = [targets.tolist() for [((_, targets), _)] in passes]
    assert list(chain.from_iterable(trainer.seen)) == [value for batch in batches for value in (len(batch), *batch)]
    assert trainer.position.global_step == 12


@pytest.mark.parametrize("save_every_steps", [None, 1])
def test_an_endless_loader_is_gone_on_with_between_epochs(save_every_steps: int | None, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"trainer__epochs": 4, "trainer__save_period": 3}
    changes["trainer__save_every_steps"] = save_every_steps
    expected = train(plain_config(tmp_path / "whole", **changes), trainer=endless)
    for num_epochs in (1, 2):
        config = plain_config(tmp_path / str(num_epochs), **changes)
        train(config, "--set", f"trainer.epochs={num_epochs}", trainer=endless)
        run("-r", str(the_run(config)), "--set", "trainer.epochs=4", trainer=endless)
        assert newest(the_run(config))["data_loader"]["num_passes"] == 3
        assert_same_run(expected, the_run(config))


@pytest.mark.parametrize("at_step", [2, 6])
def test_a_stop_in_an_epoch_of_an_endless_loader_loses_that_epoch_and_says_so(
    at_step: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Interrupted(PlainTrainer):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs | {"len_epoch": 3})
            self.num_steps = 0
            self.optimizer.register_step_post_hook(self._interrupt)

        def _interrupt(self, *_: Any) -> None:
            self.num_steps += 1
            if self.num_steps == at_step:
                os.kill(os.getpid(), signal.SIGTERM)

    expected = train(plain_config(tmp_path / "whole"), trainer=endless)
    config = plain_config(tmp_path / "stopped")
    with pytest.raises(Stopped):
        train(config, trainer=Interrupted)
    assert "this loop cannot be saved here: what came after the last checkpoint is lost" in caplog.text
    assert newest(the_run(config))["position"]["step_in_epoch"] == 0
    run("-r", str(the_run(config)), trainer=endless)
    assert_same_run(expected, the_run(config))


def test_an_endless_loader_over_a_list_is_iterated_from_the_beginning() -> None:
    loop = inf_loop([1, 2])
    assert [next(loop) for _ in range(5)] == [1, 2, 1, 2, 1]


# Loaders that are not the engine's.


class ForeignTrainer(PlainTrainer):
    """One whose loader is torch's own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["data_loader"] = self.make_loader(kwargs["data_loader"].dataset.dataset)
        super().__init__(*args, **kwargs)

    @staticmethod
    def make_loader(dataset: Any) -> DataLoader[Any]:
        """Return a loader of torch's over the samples."""
        return DataLoader(dataset, 5, shuffle=True)


class WeightedTrainer(ForeignTrainer):
    """Draws 27 samples with replacement."""

    @staticmethod
    def make_loader(dataset: Any) -> DataLoader[Any]:
        weights = [1.0 + index % 3 for index in range(len(dataset))]
        return DataLoader(dataset, 5, sampler=WeightedRandomSampler(weights, 27))


class BatchedTrainer(ForeignTrainer):
    """Has batches of a sampler of its own."""

    @staticmethod
    def make_loader(dataset: Any) -> DataLoader[Any]:
        class Shuffled(BatchSampler):
            """A subclass, as sampling by buckets would be."""

        loader = DataLoader(dataset, batch_sampler=Shuffled(RandomSampler(dataset), 6, drop_last=True))
        loader.__dict__["batch_size"] = 6  # which torch leaves None, and that loop takes the root of
        return loader


@pytest.mark.parametrize("trainer", [ForeignTrainer, WeightedTrainer, BatchedTrainer])
def test_a_loader_of_torchs_own_is_gone_on_with_to_the_bit(trainer: toy.TrainerClass, tmp_path: Path) -> None:
    num_steps = {ForeignTrainer: 7, WeightedTrainer: 6, BatchedTrainer: 5}[trainer]  # type: ignore[index]
    expected = assert_exact_at([num_steps + 2], tmp_path, trainer)
    assert newest(expected)["position"]["global_step"] == 2 * num_steps


def test_a_loader_that_is_held_twice_is_adopted_once(tmp_path: Path) -> None:
    class Twice(ForeignTrainer):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.same_loader = self.data_loader

    trainer = toy.build_trainer(parsed(plain_config(tmp_path)), Twice)
    trainer.loop.attach()
    assert isinstance(trainer, Twice)
    assert isinstance(trainer.data_loader, BaseDataLoader)
    assert trainer.same_loader is trainer.data_loader


def test_a_second_loader_beside_the_first_is_gone_on_with_too(tmp_path: Path) -> None:
    class Paired(PlainTrainer):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.unlabelled = DataLoader(self.data_loader.dataset.dataset, 4, shuffle=True)

        def _train_epoch(self, epoch: int) -> dict[str, float]:
            self.model.train()
            for (data, target), (other, _) in zip(self.data_loader, self.unlabelled):
                self.optimizer.zero_grad()
                (self.criterion(self.model(data), target) + self.model(other).square().mean()).backward()
                self.optimizer.step()
            return {}

    assert_exact_at([3, 8], tmp_path, Paired, trainer__monitor="off")


class Stream(IterableDataset[tuple[Tensor, Tensor]]):
    """Samples without indices."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(18):
            inputs = torch.randn(4)
            yield inputs, (inputs[0] > 0).long()


class StreamTrainer(ForeignTrainer):
    """One whose samples come in a stream."""

    @staticmethod
    def make_loader(dataset: Any) -> DataLoader[Any]:
        return DataLoader(Stream(), 6)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.num_passes = 0
        super().__init__(*args, **kwargs)


def test_a_stream_is_saved_between_epochs_and_goes_on_from_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DataLoader, "__len__", lambda self: 3)  # torch warns where a stream is longer than it says
    expected = train(plain_config(tmp_path / "whole"), trainer=StreamTrainer)
    assert newest(expected)["position"] == {"epoch": 3, "step_in_epoch": 0, "global_step": 6}
    config = plain_config(tmp_path / "resumed")
    train(config, "--set", "trainer.epochs=1", trainer=StreamTrainer)
    run("-r", str(the_run(config)), "--set", "trainer.epochs=2", trainer=StreamTrainer)
    assert_same_run(expected, the_run(config))


# Around an epoch.


def freezing(trainer: type[Any]) -> type[Any]:
    """Return a trainer that freezes a layer in its first epoch, and notes when it was asked."""

    class Freezing(trainer):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.asked: list[tuple[int, int]] = []

        def _before_epoch(self, epoch: int) -> None:
            assert epoch == self.position.epoch == self.start_epoch
            self.asked.append((epoch, self.position.step_in_epoch))
            self.model.hidden.requires_grad_(epoch > 1)

    return Freezing


@pytest.mark.parametrize("trainer", [freezing(PlainTrainer), freezing(toy.ToyTrainer)], ids=["plain", "counted"])
def test_what_comes_before_an_epoch_comes_before_one_that_is_gone_on_with_too(trainer: Any, tmp_path: Path) -> None:
    expected = assert_exact_at([3], tmp_path, trainer)
    first = load_checkpoint(expected / "checkpoint-epoch1.pth")["model"]["hidden.bias"]
    config = small_config(tmp_path / "again")
    with stopped_at(9):
        train(config, trainer=trainer)
    resumed: Any = toy.main(toy.parse_args(["-r", str(the_run(config))]), trainer)
    assert resumed.asked == [(2, 3)]
    assert_same_run(expected, the_run(config))
    assert not torch.equal(first, newest(expected)["model"]["hidden.bias"])
    initial = toy.build_trainer(parsed(config)).model.state_dict()["hidden.bias"]
    assert torch.equal(first, initial)
