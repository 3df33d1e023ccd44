"""The formats of an export. Each writes a file and reads it back, as whoever gets it would."""

from __future__ import annotations

import importlib.util
import logging
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from deploy.calls import Call, call_text, described_tensors, dynamic_shapes, flattened, resized_call
from deploy.table_inputs import Table, column_inputs, columns_of, with_columns
from utils.errors import ExportError
from utils.nested import tensors_of
from utils.weights import load_weights

EXAMPLE_SIZE = 8  # of the batch that torch traces; 0 and 1 are special to it
Reloaded = Callable[[Call], list[Tensor]]
"""What the exported model makes of the arguments of a call."""


class Trained(NamedTuple):
    """A model in eval mode, how it is called, what makes a new one of its class, and the columns of its table."""

    model: nn.Module
    calls: Sequence[Call]
    build: Callable[[], nn.Module]
    table: Table | None = None


class Exported(NamedTuple):
    """What runs the file, read back, its inputs and outputs, described as in export.json, and how it is called."""

    run: Reloaded
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    call: str = ""  # in Python: "images", or "Padded(values=padded_0, lengths=padded_1)"
    imports: Sequence[str] = ()  # that the call needs


class Format(NamedTuple):
    """A format: the file, the libraries that it wants beside torch, and what writes it and reads it back."""

    file: str
    libraries: tuple[str, ...]
    write: Callable[[Trained, Path], Exported]


def export_model(name: str, trained: Trained, folder: Path, log: Path) -> Exported:
    """Write a model into `folder` in the format `name`.

    Raises ExportError where the model cannot be exported; `log` then has the whole of torch's reason.
    """
    form = FORMATS[name]
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")
            logging.disable(logging.WARNING)  # torch prints pages where it fails
            exported = form.write(trained, folder / form.file)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # of torch, or of what the model does while it is traced
        log.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        kind = type(trained.model).__name__
        raise ExportError(
            f"{kind} cannot be exported as {name}: {type(error).__name__}: {reason:.300}\nthe whole reason: {log}"
        ) from None
    finally:
        logging.disable(logging.NOTSET)
    log.unlink(missing_ok=True)  # of an earlier attempt
    return exported


def check_libraries(name: str) -> None:
    """Raise ExportError where a library is missing that the format `name` wants."""
    for library in FORMATS[name].libraries:
        if importlib.util.find_spec(library) is None:
            raise ExportError(f"{name} needs {library}: pip install -r requirements-extras.txt")


def _program(model: nn.Module, calls: Sequence[Call]) -> torch.export.ExportedProgram:
    example = resized_call(model, calls, EXAMPLE_SIZE)
    shapes = dynamic_shapes(model, [example, *calls])
    return torch.export.export(model, example.args, example.kwargs, dynamic_shapes=shapes)


def _write_onnx(trained: Trained, path: Path) -> Exported:
    import onnx
    import onnxruntime

    table = trained.table
    inputs, outputs = described_tensors(trained.model, trained.calls)
    names = [entry["name"] for entry in outputs]
    model, calls = flattened(trained.model, trained.calls)
    program = torch.onnx.export(
        _program(model, calls),
        dynamic_shapes=dynamic_shapes(model, calls),  # for the name of the batch
        input_names=[entry["name"] for entry in inputs],
        output_names=names,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.save(str(path))
    columns = column_inputs(table, inputs, names)
    if columns and table is not None:
        onnx.save(with_columns(onnx.load(path), table), path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    used = {node.name for node in session.get_inputs()}

    def run(call: Call) -> list[Tensor]:
        arrays = [tensor.numpy() for tensor in call.tensors()]
        feed = dict(zip((entry["name"] for entry in inputs), arrays))
        if columns and table is not None:
            feed = columns_of(arrays[0], table)
        return [torch.from_numpy(out) for out in session.run(None, {key: feed[key] for key in feed if key in used})]

    return Exported(run, columns or inputs, outputs)


def _write_torch(trained: Trained, path: Path) -> Exported:
    torch.export.save(_program(*flattened(trained.model, trained.calls)), path)
    model = torch.export.load(path).module()
    inputs, outputs = described_tensors(trained.model, trained.calls)

    def run(call: Call) -> list[Tensor]:
        with torch.no_grad():
            return list(tensors_of(model(*call.tensors())))

    return Exported(run, inputs, outputs, ", ".join(entry["name"] for entry in inputs))


def _write_safetensors(trained: Trained, path: Path) -> Exported:
    from safetensors.torch import load_file, save_file

    save_file({name: tensor.contiguous().clone() for name, tensor in trained.model.state_dict().items()}, path)
    model = trained.build()
    load_weights(model, load_file(path), path.name)
    model.eval()

    def run(call: Call) -> list[Tensor]:
        with torch.no_grad():
            return list(tensors_of(model(*call.args, **call.kwargs)))

    described = described_tensors(trained.model, trained.calls)
    return Exported(run, *described, *call_text(trained.model, trained.calls[0]))


FORMATS = {
    "onnx": Format("model.onnx", ("onnx", "onnxscript", "onnxruntime"), _write_onnx),
    "torch": Format("model.pt2", (), _write_torch),
    "safetensors": Format("model.safetensors", ("safetensors",), _write_safetensors),
}
