"""Batches are any nest of tensors, strings and None; what goes over them keeps their shape and their kinds."""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from checkpoint.writer import clone_to_cpu
from speed import prefetch
from utils.device import to_device
from utils.nested import describe, flatten, map_tensors, tensors_of

CPU = torch.device("cpu")


class Pair(NamedTuple):
    """A namedtuple, as a dataset may give."""

    inputs: Tensor
    label: Any = None


def nests() -> dict[str, Any]:
    """Return one of each kind of batch."""
    one, two = torch.arange(3.0), torch.arange(4).reshape(2, 2)
    return {
        "tensor": one,
        "tuple": (one, two),
        "list": [one, [two, one]],
        "dict": {"x": one, "y": {"z": two}},
        "namedtuple": Pair(one, two),
        "namedtuple without a label": Pair(one),
        "with text and None": {"x": one, "names": ["a", "b"], "mask": None, "number": 5},
        "ordered dict": OrderedDict(b=one, a=two),
        "counter": Counter({5: 2, 7: 1}),
        "nothing": None,
        "text": "abc",
        "empty": [(), [], {}],
    }


def assert_alike(one: Any, other: Any) -> None:
    """Assert that two nests are of the same kinds with equal values."""
    assert type(one) is type(other)
    if isinstance(one, Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_alike(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other):
            assert_alike(a, b)
    else:
        assert one == other


@pytest.mark.parametrize("kind", nests())
def test_mapping_keeps_the_nest_and_changes_the_tensors(kind: str) -> None:
    value = nests()[kind]
    mapped = map_tensors(lambda tensor: tensor + 1, value)
    assert_alike(map_tensors(lambda tensor: tensor - 1, mapped), value)
    assert_alike(nests()[kind], value)
    assert [tensor.tolist() for tensor in tensors_of(mapped)] == [(t + 1).tolist() for t in tensors_of(value)]


@pytest.mark.parametrize("kind", nests())
@pytest.mark.parametrize("move", ["to_device", "prefetch", "clone"])
def test_batches_of_any_nest_reach_the_device(kind: str, move: str) -> None:
    value = nests()[kind]
    if move == "prefetch":
        [moved] = prefetch([value], CPU)
    else:
        moved = to_device(value, CPU) if move == "to_device" else clone_to_cpu(value)
    assert_alike(moved, value)
    if move == "clone":
        assert not {t.data_ptr() for t in tensors_of(moved)} & {t.data_ptr() for t in tensors_of(value)}


def test_images_get_the_memory_format_and_other_tensors_keep_theirs() -> None:
    images, others = torch.rand(2, 3, 4, 4), torch.rand(2, 3)
    moved = to_device({"images": images, "others": others}, CPU, torch.channels_last)
    assert moved["images"].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(moved["images"], images)
    assert moved["others"] is others


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (torch.zeros(2, 3), "float32 [2, 3]"),
        ((torch.zeros(2), torch.zeros(2, dtype=torch.int64)), "float32 [2], int64 [2]"),
        ({"x": torch.zeros(1), "mask": None, "name": "a"}, "x: float32 [1], mask: NoneType, name: str"),
        (Pair(torch.zeros(1), ["a", "b"]), "float32 [1], 2 str"),
    ],
)
def test_a_batch_is_described_for_people(value: Any, text: str) -> None:
    assert describe(value) == text


def test_flattened_dicts_have_paths_and_a_list_is_a_leaf_unless_dicts_are_in_it() -> None:
    assert flatten({"a": {"b": 1, "c": {}}, "d": [1, {"e": 2}], "f": [3]}) == {
        "a.b": 1,
        "d[0]": 1,
        "d[1].e": 2,
        "f": [3],
    }
