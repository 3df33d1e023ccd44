"""ONNX: an input for each column of a table, categories as text, in place of the matrix that the model takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Table = Mapping[str, Any]
"""The fact `table` of a TableDataLoader: `columns`, which are dicts (see tables/columns.py), and the texts
that are `missing_values`."""
UNSEEN = "\N{REPLACEMENT CHARACTER}"  # a text that is no label
BOOLS = {1.0: ("true", "t", "yes", "y", "1"), 0.0: ("false", "f", "no", "n", "0")}


def width(column: Mapping[str, Any]) -> int:
    """Return how many columns of the matrix a column of the table takes: a date one for each of its parts."""
    return len(column["parts"]) if column["kind"] == "date" else 1


def is_text(column: Mapping[str, Any]) -> bool:
    """Whether the column's values are texts, each of which has a code in the matrix."""
    return column["kind"] in ("category", "bool")


def code_table(column: Mapping[str, Any], table: Table) -> tuple[dict[str, float], float]:
    """Return the code of each text of a column, as tables/row_encoder.py has it, and that of all other texts."""
    if column["kind"] == "bool":
        texts = [(text, code) for code, texts in BOOLS.items() for text in texts]
        codes = {spelled: code for text, code in texts for spelled in (text, text.capitalize(), text.upper())}
        other = float("nan")
    else:
        codes = {label: float(code) for code, label in enumerate(column["labels"], start=1)}
        other = 0.0
    return codes | dict.fromkeys(["", *table["missing_values"]], float("nan")), other


def with_columns(model: Any, table: Table) -> Any:
    """Return the ONNX `model` with an input of the name of each column, (batch, 1), or of a date (batch, parts).

    A LabelEncoder of ai.onnx.ml turns text into codes. Texts are compared as they are, without trimming.
    """
    from onnx import TensorProto, compose, helper

    model = compose.add_prefix(model, "model/", rename_outputs=False)  # so that a column may have any name
    inputs, nodes, parts = [], [], []
    for i, column in enumerate(table["columns"]):
        kind = TensorProto.STRING if is_text(column) else TensorProto.FLOAT
        inputs.append(helper.make_tensor_value_info(column["name"], kind, ["batch", width(column)]))
        parts.append(f"codes/{i}" if is_text(column) else column["name"])
        if is_text(column):
            codes, other = code_table(column, table)
            how: dict[str, Any] = {"keys_strings": [*codes], "values_floats": [*codes.values()], "default_float": other}
            nodes.append(helper.make_node("LabelEncoder", [column["name"]], parts[-1:], domain="ai.onnx.ml", **how))
    (matrix,) = model.graph.input
    nodes.append(helper.make_node("Concat", parts, [matrix.name], axis=1))
    nodes += model.graph.node
    for field, entries in ((model.graph.input, inputs), (model.graph.node, nodes)):
        del field[:]
        field.extend(entries)
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 2))
    return model


def columns_of(rows: NDArray[np.float32], table: Table) -> dict[str, NDArray[Any]]:
    """Return the inputs of `with_columns` that give the matrix `rows`, (N, F)."""
    inputs, start = {}, 0
    for column in table["columns"]:
        values = rows[:, start : start + width(column)]
        start += width(column)
        if is_text(column):
            codes, _ = code_table(column, table)
            texts = {0.0: UNSEEN} | {code: text for text, code in codes.items() if code == code}
            texts_of = [[texts[float(code)] if code == code else "" for code in row] for row in values]
            inputs[column["name"]] = np.array(texts_of, dtype=object)
        else:
            inputs[column["name"]] = np.ascontiguousarray(values)
    return inputs


def column_inputs(table: Table | None, inputs: list[dict[str, Any]], outputs: list[str]) -> list[dict[str, Any]] | None:
    """Return the inputs of `with_columns`, described as in export.json.

    None where `inputs`, the model's own, are no matrix of the columns of `table`, or the columns' names no inputs'.
    """
    if table is None or len(inputs) != 1:
        return None
    names = [column["name"] for column in table["columns"]]
    total = sum(map(width, table["columns"]))
    if len({*names}) < len(names) or {*names} & {*outputs, ""} or inputs[0]["shape"] != ["batch", total]:
        return None
    return [
        {"name": column["name"], "dtype": "str" if is_text(column) else "float32", "shape": ["batch", width(column)]}
        for column in table["columns"]
    ]
