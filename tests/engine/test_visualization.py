"""The writer has every add_* of torch's, with the step filled in; nothing that is added before it opens is lost."""

from __future__ import annotations

import inspect
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from logger import TensorboardWriter, heatmap

IMAGE = torch.rand(1, 4, 4)
CALLS: dict[str, tuple[Any, ...]] = {
    "add_scalar": ("a", 1.5),
    "add_scalars": ("a", {"b": 1.0, "c": 2.0}),
    "add_tensor": ("a", torch.ones(2)),
    "add_histogram": ("a", torch.arange(10.0)),
    "add_histogram_raw": ("a", 0.0, 1.0, 2, 1.0, 1.0, [0.5, 1.0], [1, 1]),
    "add_image": ("a", IMAGE),
    "add_images": ("a", IMAGE.unsqueeze(0)),
    "add_image_with_boxes": ("a", IMAGE.expand(3, 4, 4), torch.tensor([[0, 0, 2, 2]])),
    "add_figure": ("a", None),
    "add_video": ("a", torch.rand(1, 2, 3, 4, 4)),
    "add_audio": ("a", torch.rand(1, 10)),
    "add_text": ("a", "text"),
    "add_onnx_graph": ("model.onnx",),
    "add_graph": (nn.Linear(2, 2), torch.rand(1, 2)),
    "add_embedding": (torch.rand(3, 2),),
    "add_pr_curve": ("a", torch.tensor([0, 1]), torch.tensor([0.2, 0.7])),
    "add_pr_curve_raw": ("a", *([np.array([1, 2])] * 6)),
    "add_custom_scalars_multilinechart": (["a", "b"],),
    "add_custom_scalars_marginchart": (["a", "b", "c"],),
    "add_custom_scalars": ({"a": {"b": ["Multiline", ["c"]]}},),
    "add_mesh": ("a", torch.rand(1, 3, 3)),
    "add_hparams": ({"lr": 0.1}, {"accuracy": 0.5}),
}
NEED_MORE = {"add_figure", "add_video", "add_onnx_graph"}  # matplotlib, moviepy, a file


def recorded(tmp_path: Path) -> tuple[TensorboardWriter, list[tuple[str, tuple[Any, ...], dict[str, Any]]]]:
    """Return a writer that notes what it asks of torch's, which is left alone."""
    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    class Recorder:
        def __getattr__(self, name: str) -> Any:
            return lambda *args, **kwargs: calls.append((name, args, kwargs))

    writer = TensorboardWriter(tmp_path)
    assert writer.writer is not None
    writer.writer.close()
    writer.writer = Recorder()  # type: ignore[assignment]
    return writer, calls


def test_every_add_of_torchs_is_tried() -> None:
    assert set(CALLS) == {name for name in dir(SummaryWriter) if name.startswith("add_")}


@pytest.mark.parametrize("name", CALLS)
def test_every_add_gets_the_step_and_its_tag_ends_in_the_mode(name: str, tmp_path: Path) -> None:
    writer, calls = recorded(tmp_path)
    parameters = inspect.signature(getattr(SummaryWriter, name)).parameters
    has_tag = list(parameters)[1] in ("tag", "main_tag") and name != "add_histogram"  # as in 2020
    for step, mode in ((7, "train"), (9, "valid"), (3, "")):
        writer.set_step(step, mode)
        getattr(writer, name)(*CALLS[name])
        tag = CALLS[name][0]
        expected = (f"{tag}/{mode}", *CALLS[name][1:]) if has_tag and mode else CALLS[name]
        called, args, kwargs = calls.pop()
        assert called == name
        assert len(args) == len(expected)
        assert all(one is other or one == other for one, other in zip(args, expected))
        assert kwargs == ({"global_step": step} if "global_step" in parameters else {})


@pytest.mark.parametrize("name", sorted(CALLS.keys() - NEED_MORE))
def test_every_add_is_written_as_torchs_writer_would(name: str, tmp_path: Path) -> None:
    for folder, writer in (
        ("ours", TensorboardWriter(tmp_path / "ours")),
        ("torchs", SummaryWriter(tmp_path / "torchs")),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tracing a graph
            getattr(writer, name)(*CALLS[name])
        writer.close()
        assert list((tmp_path / folder).rglob("events*")), name
    tags = [EventAccumulator(str(tmp_path / folder)).Reload().Tags() for folder in ("ours", "torchs")]
    assert tags[0] == tags[1]


def test_a_step_that_is_given_is_kept(tmp_path: Path) -> None:
    writer, calls = recorded(tmp_path)
    writer.set_step(5)
    writer.add_scalar("a", 1.0, 2)
    writer.add_scalar("a", 1.0, global_step=3)
    assert [(args, kwargs) for _, args, kwargs in calls] == [
        (("a/train", 1.0, 2), {}),
        (("a/train", 1.0), {"global_step": 3}),
    ]


def test_a_tag_may_be_given_by_its_name(tmp_path: Path) -> None:
    writer, calls = recorded(tmp_path)
    writer.add_scalar(tag="a", scalar_value=1.0)
    writer.set_step(4)
    writer.add_scalar(tag="a", scalar_value=1.0)
    assert [args[0] for _, args, _ in calls] == ["a", "a/train"]
    assert writer.tags == {"a", "a/train"}


def scalars(directory: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the points of every curve."""
    events = EventAccumulator(str(directory)).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_what_is_added_before_it_opens_is_written_then_with_its_own_step(tmp_path: Path) -> None:
    writer = TensorboardWriter()
    for step in (1, 2):
        writer.set_step(step)
        writer.add_scalar("loss", step / 2)
    writer.add_text("note", "text")
    assert list(tmp_path.iterdir()) == []
    writer.open(tmp_path)
    writer.set_step(3, "valid")
    writer.add_scalar("loss", 4.0)
    writer.close()
    assert scalars(tmp_path) == {"loss/train": [(1, 0.5), (2, 1.0)], "loss/valid": [(3, 4.0)]}
    assert EventAccumulator(str(tmp_path)).Reload().Tags()["tensors"] == ["note/train/text_summary"]


def test_a_disabled_writer_writes_and_keeps_nothing(tmp_path: Path) -> None:
    writer = TensorboardWriter(enabled=False)
    writer.add_scalar("a", 1.0)
    writer.open(tmp_path)
    writer.add_scalar("a", 1.0)
    writer.flush()
    writer.close()
    assert list(tmp_path.iterdir()) == []
    assert writer._early == []


def test_the_first_step_of_a_resumed_epoch_is_added_in_training_alone(tmp_path: Path) -> None:
    writer = TensorboardWriter(tmp_path)
    writer.first_step = 10
    writer.set_step(2)
    writer.add_scalar("loss", 1.0)
    writer.set_step(2, "valid")
    writer.add_scalar("loss", 1.0)
    writer.close()
    assert scalars(tmp_path) == {"loss/train": [(12, 1.0)], "loss/valid": [(2, 1.0)]}


@pytest.mark.parametrize("name", ["add_nothing", "addscalar", "log_dir", "_get_file_writer"])
def test_what_torchs_writer_has_not_is_an_attribute_error(name: str) -> None:
    with pytest.raises(AttributeError, match=f"TensorboardWriter has no '{name}'"):
        getattr(TensorboardWriter(), name)


def test_a_heatmap_shows_each_row_by_its_share() -> None:
    picture = heatmap(torch.tensor([[3, 1], [0, 0]]), cell=2)
    expected = torch.tensor([[0.75, 0.75, 0.25, 0.25]] * 2 + [[0.0] * 4] * 2)
    assert torch.equal(picture, expected.unsqueeze(0))
    assert heatmap(torch.ones(3, 2, 2), cell=1).shape == (1, 6, 2)
