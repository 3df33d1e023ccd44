"""The changes that people make to a fork each touch one file of theirs, and no file of the engine.

Every test takes a fresh project with a loader, a model and a config of its own, makes one change as a person would,
trains through the project's own train.py, and compares what came out with what is computed here.
"""

from __future__ import annotations

import io
import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from faults import assert_same_run
from fork_project import (
    CLASSES,
    CONFIG,
    LOADER,
    LR,
    MODEL,
    ONE_BATCH,
    POINTS,
    TRAIN,
    VALID,
    PointNet,
    Project,
    assert_weights,
    engine_of,
    make_points,
    new_model,
    plain_loss,
    train_by_hand,
    trained_model,
    val_loss,
)
from fork_server import ForkServer
from helpers import ROOT, epochs_of, newest


@pytest.fixture(scope="session")
def unchanged(empty_project: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """Return a project as it is before any change, and the template's own engine files."""
    path = shutil.copytree(empty_project, tmp_path_factory.mktemp("changes") / "fork")
    (path / "data_loader" / "points.py").write_text(LOADER)
    (path / "model" / "points.py").write_text(MODEL)
    (path / "config.json").write_text(json.dumps(CONFIG))
    return path, engine_of(ROOT)


@pytest.fixture
def project(tmp_path: Path, unchanged: tuple[Path, dict[str, bytes]], fork_server: ForkServer) -> Project:
    """Return a project of the test's own."""
    path, engine = unchanged
    return Project(shutil.copytree(path, tmp_path / "fork"), fork_server, engine)


# model/


def test_a_factory_in_a_second_file(project: Project) -> None:
    project.write(
        "model/wide.py",
        """
        from torch import nn

        from model.points import PointNet


        def wide_net(factor: int) -> nn.Module:
            return PointNet(width=8 * factor)
        """,
    )
    project.configure(arch={"type": "wide_net", "args": {"factor": 3}}, **ONE_BATCH)
    run_dir = project.train()
    torch.manual_seed(0)
    model = PointNet(width=24)
    train_by_hand(model)
    assert_weights(run_dir, model)
    project.assert_changed("model/wide.py")


def test_parameter_groups(project: Project) -> None:
    project.add_to_class(
        "model/points.py",
        """
        def param_groups(self):
            return [
                {"params": self.body.parameters()},
                {"params": self.head.parameters(), "lr": 0.02, "weight_decay": 0.5},
            ]
        """,
    )
    project.configure(**ONE_BATCH)
    run_dir = project.train()
    model = new_model()
    head: dict[str, Any] = {"params": model.head.parameters(), "lr": 0.02, "weight_decay": 0.5}
    train_by_hand(model, torch.optim.SGD([{"params": model.body.parameters()}, head], lr=LR))
    assert_weights(run_dir, model)
    assert [(log["lr/group0"], log["lr/group1"]) for log in epochs_of(run_dir)] == [(LR, 0.02), (LR, 0.02)]
    project.assert_changed("model/points.py")


def test_a_schedule(project: Project) -> None:
    project.append(
        "model/lr_lambda.py",
        """
        def staircase(position: int, every: PositiveInt, factor: Probability) -> float:
            return factor ** (position // every)
        """,
    )
    schedule = {"type": "staircase", "args": {"every": 2, "factor": 0.5}}
    project.configure(lr_scheduler={"type": "LambdaLR", "args": {"lr_lambda": schedule}}, trainer__epochs=5)
    rates = [log["lr/group0"] for log in epochs_of(project.train())]
    assert rates == pytest.approx([LR, LR, LR / 2, LR / 2, LR / 4])
    project.assert_changed("model/lr_lambda.py")


def test_metrics_that_are_a_vector_and_a_matrix(project: Project) -> None:
    project.append(
        "model/metric.py",
        '''
        def hits(outputs: Tensor, targets: Tensor) -> Tensor:
            """Share of the samples that are of each class and found to be, (3,)."""
            return confusion(outputs, targets).diagonal()


        def confusion(outputs: Tensor, targets: Tensor) -> Tensor:
            """Share of the samples that are of each class (rows) and taken for each class (columns), (3, 3)."""
            pairs = targets * 3 + outputs.argmax(dim=1)
            return pairs.bincount(minlength=9).reshape(3, 3) / len(targets)
        ''',
    )
    project.configure(metrics=["hits", "confusion"], trainer__tensorboard=True, data_loader__args__batch_size=3)
    run_dir = project.train()
    found = trained_model(run_dir)(POINTS[VALID]).argmax(dim=1)
    expected = torch.zeros(3, 3).index_put((CLASSES[VALID], found), torch.tensor(1 / len(VALID)), accumulate=True)
    log = epochs_of(run_dir)[-1]
    assert [log[f"val_hits/{index}"] for index in range(3)] == pytest.approx(expected.diagonal().tolist())
    events = EventAccumulator(str(run_dir), size_guidance={"images": 0}).Reload()
    image = Image.open(io.BytesIO(events.Images("confusion/valid")[-1].encoded_image_string)).convert("L")
    cells = torch.from_numpy(np.array(image) / 255).reshape(3, 16, 3, 16).mean(dim=(1, 3)).float()
    torch.testing.assert_close(cells, expected / expected.sum(dim=1, keepdim=True), atol=1 / 255, rtol=0)
    assert_same_run(run_dir, project.resume(run_dir))
    project.assert_changed("model/metric.py")


def test_a_loss_that_takes_what_the_data_knows(project: Project) -> None:
    facts = """
    def facts(self):
        return {"class_counts": torch.bincount(self.dataset.targets[self.train_indices()], minlength=3)}
"""
    project.given("data_loader/points.py", LOADER + facts)
    project.append(
        "model/loss.py",
        """
        def balanced(outputs: Tensor, targets: Tensor, class_counts: Tensor) -> Tensor:
            weights = 1 / class_counts[targets]
            return (weights * F.cross_entropy(outputs, targets, reduction="none")).mean()
        """,
    )
    project.configure(loss="balanced")
    run_dir = project.train()
    model, counts = trained_model(run_dir), torch.bincount(CLASSES[TRAIN], minlength=3)

    def balanced(points: Tensor, classes: Tensor) -> float:
        losses = F.cross_entropy(model(points), classes, reduction="none")
        return (losses / counts[classes]).mean().item()

    assert val_loss(run_dir) == pytest.approx(balanced(POINTS[VALID], CLASSES[VALID]), rel=1e-5)
    assert project.test(run_dir)["loss"] == pytest.approx(balanced(*make_points(9, seed=1)), abs=1e-6)
    project.assert_changed("model/loss.py")


# data_loader/


def test_class_weights_for_a_loss_of_torch(project: Project) -> None:
    project.add_to_class(
        "data_loader/points.py",
        """
        def facts(self):
            counts = torch.bincount(self.dataset.targets[self.train_indices()], minlength=3)
            return {"weight": 1 / counts}
        """,
    )
    project.configure(loss={"type": "CrossEntropyLoss"}, **ONE_BATCH)
    run_dir = project.train()
    model, weight = new_model(), 1 / torch.bincount(CLASSES[TRAIN], minlength=3)
    train_by_hand(model, loss=lambda model, *batch: F.cross_entropy(model(batch[0]), batch[1], weight=weight))
    assert_weights(run_dir, model)
    points, classes = make_points(9, seed=1)
    expected = F.cross_entropy(model(points), classes, weight=weight).item()
    assert project.test(run_dir)["loss"] == pytest.approx(expected, abs=1e-6)
    project.assert_changed("data_loader/points.py")


def test_a_sampler(project: Project) -> None:
    metric = "\n\ndef mean_class(outputs: Tensor, targets: Tensor) -> Tensor:\n    return targets.float().mean()\n"
    project.given("model/metric.py", project.read("model/metric.py") + metric)
    project.replace(
        "data_loader/points.py",
        "        super().__init__(",
        """
        def draw(indices):  # class 2 three times as often as class 1, class 0 never
            weights = torch.tensor([0.0, 0.25, 0.75])[classes[indices]]
            return torch.utils.data.WeightedRandomSampler(weights, 4000)

        super().__init__(""",
    )
    project.replace("data_loader/points.py", "num_workers=0)", "0, sampler=draw if training else None)")
    project.configure(metrics=["mean_class"], data_loader__args__batch_size=1000)
    run_dir = project.train()
    counts = torch.bincount(CLASSES[TRAIN], minlength=3) * torch.tensor([0, 1, 3])
    expected = (counts * torch.arange(3)).sum() / counts.sum()
    first, second = epochs_of(run_dir)
    assert [first["mean_class"], second["mean_class"]] == pytest.approx([expected.item()] * 2, abs=0.03)
    assert first["mean_class"] != second["mean_class"]
    assert (first["global_step"], second["global_step"]) == (4, 8)
    assert first["val_mean_class"] == pytest.approx(CLASSES[VALID].float().mean().item())
    assert project.test(run_dir)["mean_class"] == pytest.approx(make_points(9, seed=1)[1].float().mean().item())
    assert_same_run(run_dir, project.resume(run_dir))
    project.assert_changed("data_loader/points.py")


def test_a_validation_set(project: Project) -> None:
    project.replace(
        "data_loader/points.py",
        "split = 0.25 if training else 0",
        "valid = TensorBatches(*make_points(11, seed=2)) if training else None",
    )
    project.replace("data_loader/points.py", "split, num_workers=0", "0, 0, validation_set=valid")
    run_dir = project.train()
    model, (points, classes) = trained_model(run_dir), make_points(11, seed=2)
    assert val_loss(run_dir) == pytest.approx(plain_loss(model, points, classes).item(), rel=1e-5)
    assert epochs_of(run_dir)[-1]["global_step"] == 2 * 32 / 8
    project.assert_changed("data_loader/points.py")


def test_a_split_by_indices(project: Project) -> None:
    project.replace(
        "data_loader/points.py",
        "split = 0.25 if training else 0",
        "held_out = torch.tensor([30, 3, 17]) if training else None",
    )
    project.replace("data_loader/points.py", "split, num_workers=0", "0, 0, valid_indices=held_out")
    run_dir = project.train()
    expected = plain_loss(trained_model(run_dir), POINTS[[30, 3, 17]], CLASSES[[30, 3, 17]])
    assert val_loss(run_dir) == pytest.approx(expected.item(), rel=1e-5)
    assert epochs_of(run_dir)[-1]["global_step"] == 2 * 4  # 29 samples in batches of 8
    project.assert_changed("data_loader/points.py")


SUM_NET = """
from base import BaseModel
from torch import nn


class SumNet(BaseModel):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, sequences):  # (N, L, 4), padded
        return self.head(sequences.sum(dim=1))
"""


def test_sequences_that_are_padded(project: Project) -> None:
    project.given("model/sums.py", SUM_NET)
    project.write(
        "data_loader/sequences.py",
        """
        import torch
        from torch.nn.utils.rnn import pad_sequence

        from base import BaseDataLoader
        from data_loader.points import make_points


        def pad(samples):
            sequences, classes = zip(*samples)
            return pad_sequence(list(sequences), batch_first=True), torch.stack(classes)


        class SequenceLoader(BaseDataLoader):
            def __init__(self, batch_size: int, training: bool = True):
                points, classes = make_points(32, seed=0)
                samples = [(points[: 1 + i % 5], classes[i]) for i in range(32)]
                super().__init__(samples, batch_size, training, 0.25 if training else 0, 0, collate_fn=pad)
        """,
    )
    project.configure(arch__type="SumNet", data_loader__type="SequenceLoader")
    run_dir = project.train()
    weights = newest(run_dir)["model"]
    sums = torch.stack([POINTS[: 1 + i % 5].sum(dim=0) for i in VALID.tolist()])
    expected = F.cross_entropy(F.linear(sums, weights["head.weight"], weights["head.bias"]), CLASSES[VALID])
    assert val_loss(run_dir) == pytest.approx(expected.item(), rel=1e-5)
    project.assert_changed("data_loader/sequences.py")


# trainer/batch.py


def test_batches_that_are_dicts(project: Project) -> None:
    project.given(
        "data_loader/dicts.py",
        """
        from base import BaseDataLoader
        from data_loader.points import make_points


        class DictLoader(BaseDataLoader):
            def __init__(self, batch_size: int, training: bool = True):
                points, classes = make_points(32, seed=0) if training else make_points(9, seed=1)
                samples = [{"point": p, "class": c, "name": str(i)} for i, (p, c) in enumerate(zip(points, classes))]
                super().__init__(samples, batch_size, training, 0.25 if training else 0, 0)
        """,
    )
    project.replace("trainer/batch.py", "inputs, targets = batch", 'inputs, targets = batch["point"], batch["class"]')
    project.configure(data_loader__type="DictLoader")
    run_dir = project.train()
    model = trained_model(run_dir)
    assert val_loss(run_dir) == pytest.approx(plain_loss(model, POINTS[VALID], CLASSES[VALID]).item(), rel=1e-5)
    expected = plain_loss(model, *make_points(9, seed=1)).item()
    assert project.test(run_dir)["loss"] == pytest.approx(expected, abs=1e-6)
    project.assert_changed("trainer/batch.py")


def test_two_outputs_and_an_auxiliary_loss(project: Project) -> None:
    project.given(
        "model/twice.py",
        """
        import torch

        from model.points import PointNet


        class TwiceNet(PointNet):
            def forward(self, points):
                hidden = torch.tanh(self.body(points))
                return self.head(hidden), hidden
        """,
    )
    project.replace("trainer/batch.py", "outputs = predict_batch(model, inputs)", "outputs, hidden = model(inputs)")
    project.replace(
        "trainer/batch.py",
        "return BatchResult(criterion(outputs, targets),",
        "return BatchResult(criterion(outputs, targets) + 0.1 * hidden.square().mean(),",
    )
    project.configure(arch__type="TwiceNet", **ONE_BATCH)
    run_dir = project.train()

    def loss(model: PointNet, points: Tensor, classes: Tensor) -> Tensor:
        return plain_loss(model, points, classes) + 0.1 * torch.tanh(model.body(points)).square().mean()

    model = new_model()
    train_by_hand(model, loss=loss)
    assert_weights(run_dir, model)
    assert val_loss(run_dir) == pytest.approx(loss(model, POINTS[VALID], CLASSES[VALID]).item(), rel=1e-5)
    project.assert_changed("trainer/batch.py")


def test_a_loss_of_three_arguments(project: Project) -> None:
    loss = """

def weighted(outputs, targets, weights=None):
    return (F.cross_entropy(outputs, targets, reduction="none") * weights).mean()
"""
    project.given("model/loss.py", project.read("model/loss.py") + loss)
    project.replace(
        "trainer/batch.py", "criterion(outputs, targets)", "criterion(outputs, targets, inputs[:, 2].abs())"
    )
    project.configure(loss="weighted")
    run_dir = project.train()
    losses = F.cross_entropy(trained_model(run_dir)(POINTS[VALID]), CLASSES[VALID], reduction="none")
    assert val_loss(run_dir) == pytest.approx((losses * POINTS[VALID, 2].abs()).mean().item(), rel=1e-5)
    project.assert_changed("trainer/batch.py")


def test_a_loss_over_the_samples_that_are_not_masked(project: Project) -> None:
    project.given(
        "data_loader/points.py", LOADER.replace("        split =", "        classes[::3] = -1\n        split =")
    )
    project.replace(
        "trainer/batch.py",
        "    outputs = predict_batch(model, inputs)\n",
        "    is_known = targets >= 0\n    outputs, targets = model(inputs)[is_known], targets[is_known]\n",
    )
    project.replace(
        "trainer/batch.py",
        "    return loss_denominator(criterion, targets, num_samples)",
        "    return (targets >= 0).sum()",
    )
    metric = {"type": "MulticlassAccuracy", "args": {"num_classes": 3, "average": "micro"}, "name": "accuracy"}
    project.configure(metrics=[metric], data_loader__args__batch_size=5, trainer__grad_accum_steps=5)  # 24 a step
    run_dir = project.train()
    classes = torch.where(torch.arange(32) % 3 == 0, -1, CLASSES)

    def loss(model: nn.Module, indices: Tensor) -> Tensor:
        return F.cross_entropy(model(POINTS[indices]), classes[indices], ignore_index=-1)

    assert epochs_of(run_dir)[0]["loss"] == pytest.approx(loss(new_model(), TRAIN).item(), rel=1e-5)
    model = new_model()
    train_by_hand(model, loss=lambda model, *_: loss(model, TRAIN))
    assert_weights(run_dir, model)
    assert val_loss(run_dir) == pytest.approx(loss(model, VALID).item(), rel=1e-5)
    known = VALID[classes[VALID] >= 0]
    is_right = model(POINTS[known]).argmax(dim=1) == classes[known]
    assert epochs_of(run_dir)[-1]["val_accuracy"] == pytest.approx(is_right.float().mean().item())
    project.assert_changed("trainer/batch.py")


# trainer/trainer.py


AFTER_INIT = "        self._set_up_step()\n        self.train_metrics ="  # in Trainer.__init__


def test_a_second_optimizer(project: Project) -> None:
    project.replace(
        "trainer/trainer.py",
        AFTER_INIT,
        f"""        self.critic = nn.Linear(3, 1).to(device)
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), lr=0.01)
{AFTER_INIT}""",
    )
    project.replace(
        "trainer/trainer.py",
        "        self.ema.update()\n",
        """        self.ema.update()
        error = (self.critic(outputs.detach()).squeeze(1) - targets).square().mean()
        self.critic_optimizer.zero_grad()
        error.backward()
        self.critic_optimizer.step()
""",
    )
    run_dir = project.train()
    checkpoint = newest(run_dir)
    assert checkpoint["critic"].keys() == {"weight", "bias"}
    assert checkpoint["critic_optimizer"]["state"][0]["step"] == 6
    assert_same_run(run_dir, project.resume(run_dir))
    project.assert_changed("trainer/trainer.py")


def test_gradient_noise(project: Project) -> None:
    project.replace(
        "trainer/trainer.py",
        "        grad_norm = clip_gradients(",
        """        for parameter in self.parameters:
            parameter.grad += 0.5 * torch.randn_like(parameter.grad)
        grad_norm = clip_gradients(""",
    )
    project.configure(**ONE_BATCH)
    run_dir = project.train()
    model = new_model()

    def add_noise() -> None:
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.grad += 0.5 * torch.randn_like(parameter.grad)

    train_by_hand(model, after_backward=add_noise)
    assert_weights(run_dir, model)
    assert_same_run(run_dir, project.resume(run_dir))
    project.assert_changed("trainer/trainer.py")


def test_a_gradient_penalty(project: Project) -> None:
    project.replace(
        "trainer/trainer.py",
        "            share = weighted(loss, weight, total())",
        """            slopes = torch.autograd.grad(loss, list(self.model.parameters()), create_graph=True)
            loss = loss + 0.1 * sum(slope.square().sum() for slope in slopes)
            share = weighted(loss, weight, total())""",
    )
    project.configure(**ONE_BATCH)
    run_dir = project.train()

    def loss(model: nn.Module, points: Tensor, classes: Tensor) -> Tensor:
        value = plain_loss(model, points, classes)
        slopes = torch.autograd.grad(value, list(model.parameters()), create_graph=True)
        return value + 0.1 * torch.cat([slope.flatten() for slope in slopes]).square().sum()

    first = loss(new_model(), POINTS[TRAIN], CLASSES[TRAIN])
    assert epochs_of(run_dir)[0]["loss"] == pytest.approx(first.item(), rel=1e-5)
    model = new_model()
    train_by_hand(model, loss=loss)
    assert_weights(run_dir, model)
    project.assert_changed("trainer/trainer.py")


def test_layers_that_are_frozen_for_two_epochs(project: Project) -> None:
    project.add_to_class(
        "trainer/trainer.py",
        """
        def _before_epoch(self, epoch: int) -> None:
            self.model.body.requires_grad_(epoch > 2)
        """,
    )
    project.configure(trainer__epochs=3, optimizer={"type": "AdamW", "args": {"lr": 0.01}})
    run_dir = project.train()
    models = [new_model(), *(trained_model(run_dir / f"checkpoint-epoch{epoch}.pth") for epoch in (1, 2, 3))]
    for epoch, (before, after) in enumerate(pairwise(models), 1):
        assert torch.equal(before.body.weight, after.body.weight) == (epoch <= 2)
        assert not torch.equal(before.head.weight, after.head.weight)
    assert_same_run(run_dir, project.resume(run_dir))
    project.assert_changed("trainer/trainer.py")


def test_a_table_of_ones_own(project: Project) -> None:
    project.add_to_class(
        "trainer/trainer.py",
        """
        def _finish_epoch(self, log: dict[str, float]) -> None:
            with open(self.checkpoint_dir / "epochs.csv", "a") as file:
                print(self.position.epoch, log["loss"], log["val_loss"], sep=",", file=file)
            super()._finish_epoch(log)
        """,
    )
    run_dir = project.train()
    rows = [[float(value) for value in line.split(",")] for line in (run_dir / "epochs.csv").read_text().splitlines()]
    assert rows == [[log["epoch"], log["loss"], log["val_loss"]] for log in epochs_of(run_dir)]
    assert len(rows) == 2
    project.assert_changed("trainer/trainer.py")


MEAN_LOSS = """
class MeanLoss:
    def __init__(self, trainer):
        self.trainer = trainer

    def state_dict(self):
        return {"mean_loss": self.trainer.mean_loss}

    def load_state_dict(self, state):
        self.trainer.mean_loss = state["mean_loss"]
"""


def test_state_of_ones_own(project: Project) -> None:
    project.replace("trainer/trainer.py", AFTER_INIT, f"        self.mean_loss = 1.0\n{AFTER_INIT}")
    project.replace(
        "trainer/trainer.py",
        "            share = weighted(loss, weight, total())",
        """            self.mean_loss += 0.5 * (loss.item() - self.mean_loss)
            loss = loss / self.mean_loss
            share = weighted(loss, weight, total())""",
    )
    project.add_to_class(
        "trainer/trainer.py",
        """
        def _stateful(self):
            return {**super()._stateful(), "mean": MeanLoss(self)}
        """,
    )
    project.append("trainer/trainer.py", MEAN_LOSS)
    project.configure(**ONE_BATCH)
    run_dir = project.train()
    mean_loss = 1.0

    def loss(model: nn.Module, points: Tensor, classes: Tensor) -> Tensor:
        nonlocal mean_loss
        value = plain_loss(model, points, classes)
        mean_loss += 0.5 * (value.item() - mean_loss)
        return value / mean_loss

    model = new_model()
    train_by_hand(model, loss=loss)
    assert_weights(run_dir, model)
    assert newest(run_dir)["mean"]["mean_loss"] == pytest.approx(mean_loss)
    assert_same_run(run_dir, project.resume(run_dir))
    project.assert_changed("trainer/trainer.py")


# Other files


def test_what_validation_and_test_measure(project: Project) -> None:
    project.replace(
        "trainer/evaluation.py",
        "        metrics.update(",
        """        outputs = (outputs + model(-batch[0])) / 2
        loss = criterion(outputs, targets)
        metrics.update(""",
    )
    run_dir = project.train()
    model = trained_model(run_dir)

    def loss(points: Tensor, classes: Tensor) -> float:
        return F.cross_entropy((model(points) + model(-points)) / 2, classes).item()

    assert val_loss(run_dir) == pytest.approx(loss(POINTS[VALID], CLASSES[VALID]), rel=1e-5)
    assert project.test(run_dir)["loss"] == pytest.approx(loss(*make_points(9, seed=1)), abs=1e-6)
    project.assert_changed("trainer/evaluation.py")


def test_a_flag_of_ones_own(project: Project) -> None:
    project.replace(
        "train.py", "OPTIONS = [\n", 'OPTIONS = [\n    CustomArg(["--width"], type=int, target="arch;args;width"),\n'
    )
    assert newest(project.train("--width", "5"))["model"]["body.weight"].shape == (5, 4)
    project.assert_changed("train.py")


def test_a_section_of_ones_own(project: Project) -> None:
    project.replace(
        "slots.py",
        "SLOTS: dict[str, Slot | type[Options]] = {\n",
        '''class Notes(Options):
    """What a run is for."""

    ticket: int
    author: str = "nobody"


SLOTS: dict[str, Slot | type[Options]] = {
    "notes": Notes,
''',
    )
    project.configure(notes={"tikcet": 3})
    script = project.run("train.py", "-c", "config.json")
    assert script.code == 2
    assert "notes.ticket: missing" in script.output
    assert "notes.tikcet: unknown key; did you mean 'ticket'?" in script.output
    project.configure(notes={"ticket": 3})
    run_dir = project.train()
    assert newest(run_dir)["config"]["notes"] == {"ticket": 3, "author": "nobody"}
    script = project.run("train.py", "-r", str(run_dir), "--set", "trainer.epochs=3", "--set", "notes.ticket=4")
    assert script.code == 4
    assert "notes.ticket" in script.output
    project.assert_changed("slots.py")


# What is declared in one file and used in another: two files of theirs


def test_a_key_of_ones_own(project: Project) -> None:
    project.replace(
        "trainer/options.py", "import parse_config\n", "from pydantic import Field\n\nimport parse_config\n"
    )
    project.add_to_class("trainer/options.py", 'loss_scale: float = Field(default=1.0, gt=0, description="a factor")')
    project.replace(
        "trainer/trainer.py",
        "share = weighted(loss, ",
        "loss = loss * self.options.loss_scale\n            share = weighted(loss, ",
    )
    project.configure(trainer__loss_scale=0.25, **ONE_BATCH)
    run_dir = project.train()
    model = new_model()
    train_by_hand(model, torch.optim.SGD(model.parameters(), lr=LR / 4))
    assert_weights(run_dir, model)
    script = project.run("train.py", "-c", "config.json", "--set", "trainer.loss_scale=big")
    assert script.code == 2
    assert script.output == "config.json: trainer.loss_scale: Input should be a valid number; got 'big'\n"
    project.assert_changed("trainer/options.py", "trainer/trainer.py")


def test_early_stopping_on_a_value_of_ones_own(project: Project) -> None:
    project.add_to_class("trainer/options.py", 'LOGGED = ("body_norm",)')
    project.replace(
        "trainer/trainer.py",
        '        self._step_scheduler("epoch", log)\n',
        """        log["body_norm"] = self.model.body.weight.norm().item()
        self._step_scheduler("epoch", log)
""",
    )
    project.configure(trainer__epochs=9, trainer__monitor="max body_norm", trainer__early_stop=2)
    project.configure(optimizer__args__weight_decay=0.5)
    run_dir = project.train()
    norms = [log["body_norm"] for log in epochs_of(run_dir)]
    assert norms == pytest.approx(
        [trained_model(run_dir / f"checkpoint-epoch{epoch}.pth").body.weight.norm().item() for epoch in (1, 2, 3)]
    )
    assert newest(run_dir)["monitor"] == {"best": norms[0], "best_epoch": 1, "num_bad_epochs": 2, "top": []}
    assert json.loads((run_dir / "status.json").read_text())["status"] == "early_stopped"
    project.assert_changed("trainer/options.py", "trainer/trainer.py")


def test_a_teacher(project: Project) -> None:
    project.replace(
        "slots.py",
        '    "trainer": TrainerOptions,\n',
        '    "teacher": Slot(("model.*",), base=nn.Module, description="a model"),\n    "trainer": TrainerOptions,\n',
    )
    project.replace(
        "trainer/trainer.py",
        AFTER_INIT,
        f'        self.teacher = config.init_obj("teacher").to(device).requires_grad_(False)\n{AFTER_INIT}',
    )
    project.replace(
        "trainer/trainer.py",
        "            share = weighted(loss, weight, total())",
        """            loss = loss + (outputs - self.teacher(batch[0])).square().mean()
            share = weighted(loss, weight, total())""",
    )
    project.configure(teacher={"type": "PointNet", "args": {"width": 5}}, **ONE_BATCH)
    run_dir = project.train()
    model, teacher = new_model(), PointNet(width=5)

    def loss(model: nn.Module, points: Tensor, classes: Tensor) -> Tensor:
        return plain_loss(model, points, classes) + (model(points) - teacher(points).detach()).square().mean()

    train_by_hand(model, loss=loss)
    assert_weights(run_dir, model)
    torch.testing.assert_close(newest(run_dir)["teacher"], dict(teacher.state_dict()))
    script = project.run("train.py", "-c", "config.json", "--set", "teacher.type=PointNett")
    assert script.code == 2
    assert "teacher.type: unknown type 'PointNett'; did you mean 'PointNet'?" in script.output
    project.assert_changed("slots.py", "trainer/trainer.py")
