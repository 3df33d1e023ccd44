"""An ONNX file of a table's model takes each column by its name, and texts become the codes that it was trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

from deploy.table_inputs import column_inputs, columns_of, with_columns

NAN = float("nan")
TABLE: dict[str, Any] = {
    "columns": [
        {"name": "age", "kind": "number", "labels": [], "missing": "mean"},
        {"name": "rows", "kind": "category", "labels": ["admin", "größer", "self-employed"], "missing": "error"},
        {"name": "since", "kind": "date", "parts": ["year", "month"], "labels": [], "missing": "median"},
        {"name": "is it?", "kind": "bool", "labels": [], "missing": "most_frequent"},
    ],
    "missing_values": ["", "NA"],
}
ROWS = np.array(
    [[30, 1, 1999, 1, 1], [NAN, 0, 2000, 12, 0], [1.5, NAN, NAN, NAN, NAN], [-1, 3, 2026, 7, 1]], dtype=np.float32
)
INPUTS = [{"name": "rows", "dtype": "float32", "shape": ["batch", 5]}]


def session_of(table: dict[str, Any]) -> onnxruntime.InferenceSession:
    """Return a session of a model that returns the matrix that it gets, with the columns of `table` as inputs."""
    matrix, outputs = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 5]) for name in ("rows", "outputs")
    )
    graph = helper.make_graph([helper.make_node("Identity", ["rows"], ["outputs"])], "identity", [matrix], [outputs])
    opsets = [helper.make_opsetid("", 20)]
    model = with_columns(helper.make_model(graph, opset_imports=opsets, ir_version=10), table)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def test_texts_become_codes() -> None:
    session = session_of(TABLE)
    described = column_inputs(TABLE, INPUTS, ["outputs"])
    assert described is not None
    assert [(node.name, node.shape) for node in session.get_inputs()] == [
        (entry["name"], entry["shape"]) for entry in described
    ]
    assert [entry["dtype"] for entry in described] == ["float32", "str", "float32", "str"]
    columns = {
        "age": np.array([[30], [NAN], [1.5], [-1]], np.float32),
        "rows": np.array([["admin"], ["never seen"], ["NA"], ["self-employed"]]),
        "since": np.array([[1999, 1], [2000, 12], [NAN, NAN], [2026, 7]], np.float32),
        "is it?": np.array([["True"], ["no"], ["perhaps"], ["1"]]),
    }
    np.testing.assert_array_equal(session.run(None, columns)[0], ROWS)


def test_a_matrix_comes_back_through_its_columns() -> None:
    np.testing.assert_array_equal(session_of(TABLE).run(None, columns_of(ROWS, TABLE))[0], ROWS)


def test_where_columns_cannot_be_inputs_the_matrix_stays() -> None:
    twice = {**TABLE, "columns": [*TABLE["columns"][:3], {**TABLE["columns"][3], "name": "age"}]}
    other_width = [{**INPUTS[0], "shape": ["batch", 6]}]
    assert column_inputs(None, INPUTS, ["outputs"]) is None
    assert column_inputs(twice, INPUTS, ["outputs"]) is None
    assert column_inputs(TABLE, other_width, ["outputs"]) is None
    assert column_inputs(TABLE, INPUTS * 2, ["outputs"]) is None
    assert column_inputs(TABLE, INPUTS, ["age"]) is None
