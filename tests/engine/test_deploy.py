"""What is exported is compared with the model itself, whatever it takes; folders are whole or not there."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from deploy.about import about_outputs
from deploy.calls import Call, argument_names, call_text, calls_of, described_tensors, flattened, resized_call
from deploy.folder import new_folder
from deploy.formats import Trained, check_libraries, export_model
from deploy.parity import check_parity
from prediction import kind_of
from utils import RunDirError
from utils.errors import ExportError
from utils.nested import tensors_of


class Pair(nn.Module):
    """Takes sequences of any length, in a dict, and a table that is the same for all samples; returns two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, batch: dict[str, Tensor], table: Tensor, *, scale: float = 1.0) -> tuple[Tensor, Tensor]:
        words, lengths = batch["words"], batch["lengths"]  # (N, T, 3), (N,)
        hidden = self.linear(words).sum(dim=1) / lengths.unsqueeze(1)
        return hidden * scale, hidden @ table


def pair_calls(model: nn.Module) -> list[Call]:
    """Return calls of different lengths and sizes."""
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(2, 4, generator=generator)
    batches = [
        {"words": torch.randn(size, length, 3, generator=generator), "lengths": torch.full((size,), float(length))}
        for size, length in [(4, 5), (4, 9), (3, 2)]
    ]
    return list(calls_of(model, lambda batch: model(batch, table, scale=2.0), batches))


def as_it_is(model: nn.Module) -> Callable[[Call], list[Tensor]]:
    """Return what runs the model itself."""
    return lambda call: list(tensors_of(model(*call.args, **call.kwargs)))


def linear_calls(model: nn.Module) -> list[Call]:
    return list(calls_of(model, model, [torch.linspace(-1, 1, 20).unsqueeze(1)]))


def test_calls_are_resized_and_described() -> None:
    model = Pair().eval()
    calls = pair_calls(model)
    assert argument_names(model, calls[0]) == ["batch_0", "batch_1", "table"]
    resized = resized_call(model, calls, 7)
    assert [list(tensor.shape) for tensor in resized.tensors()] == [[7, 5, 3], [7], [2, 4]]
    assert resized.kwargs["scale"] == 2.0
    inputs, outputs = described_tensors(model, calls)
    assert [entry["shape"] for entry in inputs] == [["batch", 5, 3], ["batch"], [2, 4]]
    assert [entry["name"] for entry in outputs] == ["outputs_0", "outputs_1"]


class Sequences(NamedTuple):
    """What a loader gives in place of a tensor."""

    values: Tensor
    lengths: Tensor


def test_a_call_is_written_in_python_and_flattened() -> None:
    class Last(nn.Module):
        def forward(self, given: Sequences, scale: dict[str, Any]) -> Tensor:
            return given.values[:, -1] / given.lengths * scale["by"]

    model = Last().eval()
    (call,) = calls_of(
        model, lambda given: model(given, scale={"by": 2.0}), [Sequences(torch.ones(3, 4), torch.ones(3))]
    )
    text = "Sequences(values=given_0, lengths=given_1), scale={'by': 2.0}"
    assert call_text(model, call) == (text, [f"from {__name__} import Sequences"])
    flat, (flat_call,) = flattened(model, [call])
    assert torch.equal(flat(*flat_call.args), call.outputs)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["onnx", "torch", "safetensors"])
def test_a_model_of_several_inputs_and_lengths(name: str, tmp_path: Path) -> None:
    model = Pair().eval()
    calls = pair_calls(model)
    exported = export_model(name, Trained(model, calls, Pair), tmp_path, tmp_path / "log")
    parity = check_parity(model, exported.run, calls, calls)
    assert (parity.num_batches, parity.num_samples) == (3, 11)
    assert parity.relative <= 1e-5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda out: out * (1 + 5e-6), None),
        (lambda out: out * (1 + 2e-5), "relative 2e-05; allowed: 1e-05"),
        (lambda out: out + 1e-6, None),  # also where an output is zero: the others are about 1
        (lambda out: torch.where(out == out.max(), torch.nan, out), "differ by inf"),
        (lambda out: out.double(), r"it gives .*float64 \[1, 1\].*, the model .*float32 \[1, 1\]"),
        (lambda out: out[:, 0], r"it gives .*float32 \[1\]"),
        (lambda out: out[:5], r"on 7 samples|it gives .*\[5, 1\].*, the model .*\[7, 1\]"),
    ],
)
def test_differences_are_found(change: Callable[[Tensor], Tensor], message: str | None) -> None:
    model = nn.Linear(1, 1).eval()
    nn.init.ones_(model.weight)
    nn.init.zeros_(model.bias)

    def exported(call: Call) -> list[Tensor]:
        return [change(model(*call.args))]

    calls = linear_calls(model)
    if message is None:
        assert check_parity(model, exported, calls, calls).relative > 0
    else:
        with pytest.raises(ExportError, match=message):
            check_parity(model, exported, calls, calls)


def test_what_is_not_finite_must_be_the_same() -> None:
    class Log(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.log()  # NaN below 0, -inf at 0

    model, rows = Log(), torch.tensor([[-1.0], [0.0], [2.0]])
    calls = list(calls_of(model, model, [rows]))
    assert check_parity(model, as_it_is(model), calls, calls) == (0.0, 0.0, 1, 3)
    with pytest.raises(ExportError, match="not the same"):
        check_parity(model, lambda call: [call.outputs.nan_to_num(0.0)], calls, calls)


def test_a_fixed_batch_size_is_refused(tmp_path: Path) -> None:
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(8, -1)

    model = Fixed()
    calls = list(calls_of(model, model, [torch.zeros(8, 1)]))
    with pytest.raises(ExportError, match="Fixed cannot be exported as torch: UserError: Constraints violated"):
        export_model("torch", Trained(model, calls, Fixed), tmp_path, tmp_path / "log")


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ExportError, match=r"safetensors needs safetensors: pip install -r requirements-extras\.txt"):
        check_libraries("safetensors")
    check_libraries("torch")


def test_a_model_that_is_not_called_is_refused() -> None:
    with pytest.raises(ExportError, match="does not call the model itself"):
        list(calls_of(nn.Linear(1, 1), lambda batch: batch, [torch.zeros(1, 1)]))


@pytest.mark.parametrize(
    ("loss", "classes", "expected"),
    [
        ("mse_loss", ["a"], (None, None)),
        ("nll_loss", None, ("softmax", ["0", "1"])),
        ({"type": "CrossEntropyLoss"}, ["no", "yes"], ("softmax", ["no", "yes"])),
        ("BCEWithLogitsLoss", None, ("sigmoid", None)),
    ],
)
def test_the_loss_says_what_outputs_are(loss: Any, classes: list[str] | None, expected: tuple[Any, Any]) -> None:
    said = about_outputs(kind_of(loss), [{"shape": ["batch", 2]}], classes)
    assert (said["probabilities"], said["classes"]) == expected


def test_a_folder_is_whole_or_not_there(tmp_path: Path) -> None:
    folder = tmp_path / "exported"
    for content in ("one", "two"):
        with new_folder(folder) as temp:
            (temp / "export.json").write_text(content)
        assert (folder / "export.json").read_text() == content
    with pytest.raises(RunDirError, match="exported: cannot be written to: Is a directory"), new_folder(folder) as temp:
        temp.write_text("")
    assert [path.name for path in folder.iterdir()] == ["export.json"]
    (folder / "export.json").unlink()
    (folder / "mine").touch()
    with pytest.raises(RunDirError, match="is there already, and no earlier export"), new_folder(folder):
        pass
    assert [path.name for path in tmp_path.rglob("*")] == ["exported", "mine"]
