"""The model card: what a folder holds, for whoever gets it without the project; and the same as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from deploy.folder import FACTS_FILE
from utils.files import write_json

CARD_FILE = "README.md"
MAX_LABELS = 30
SHOWN = ("arch", "data_loader", "loss", "optimizer", "lr_scheduler", "seed")  # sections of the config
LOADING = {
    "onnx": """import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
inputs = {{
{arrays}
}}
outputs = session.run(None, inputs)""",
    "torch": """import torch

model = torch.export.load("model.pt2").module()
{tensors}
outputs = model({call})""",
    "safetensors": """import json
from pathlib import Path

import torch
from safetensors.torch import load_file

{imports}  # of the project, at the commit above

about = json.loads(Path("export.json").read_text())
model = {kind}(**about["arch_args"]).eval()
model.load_state_dict(load_file("model.safetensors"))
{tensors}
outputs = model({call})""",
}


def write_card(folder: Path, about: Mapping[str, Any]) -> None:
    """Write `about` into `folder` as JSON, and README.md, which says it in words."""
    plain = _plain(about)
    write_json(plain, folder / FACTS_FILE)
    (folder / CARD_FILE).write_text(_card(plain), encoding="utf-8")


def _plain(value: Any) -> Any:
    """Return what JSON can hold of any nest: tensors become lists, and numbers that are not finite null."""
    if isinstance(value, torch.Tensor):
        return _plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


def _card(about: Mapping[str, Any]) -> str:
    git, check, config = about["git"], about["check"], about["config"]
    shown = {key: config[key] for key in SHOWN if config.get(key)}
    commit = f"`{git['commit']}`{', with changes' if git.get('is_dirty') else ''}" if git.get("commit") else "unknown"
    parts = [
        f"# {config['name']}\n",
        f"`{about['file']}` is the {config['arch']['type']} of run `{about['run']}`, {about['checkpoint']}, epoch "
        f"{about['epoch']}. Format: {about['format']}. Code: commit {commit}.\n",
        "## Load it\n",
        f"```python\n{_loading(about)}\n```\n",
        "## Inputs and outputs\n",
        _table(["name", "", "dtype", "shape"], _tensor_rows(about)),
        f"Inputs are as `{config['data_loader']['type']}` gives them: {about['data']}\n",
        *_columns(about),
        *_classes(about),
        "## Metrics\n",
        *_metrics(about["test"]),
        "## The check\n",
        f"This file was loaded again and gave the outputs of the trained model on {check['num_batches']} batches "
        f"({check['num_samples']:,} samples) of the {about['split']} data, and on batches of 1, 7 and 512 samples. "
        f"Largest difference: {check['absolute']:.3g} absolute, {check['relative']:.3g} relative "
        "(to the output, or to the root mean square of the outputs where that is larger).\n",
        "## Config\n",
        f"```json\n{json.dumps(shown, indent=4)}\n```\n",
        f"`{FACTS_FILE}` has all of this, the whole config, and what the training data said, for programs.\n",
    ]
    return "\n".join(parts)


def _loading(about: Mapping[str, Any]) -> str:
    names, kind = [entry["name"] for entry in about["inputs"]], about["config"]["arch"]["type"]
    shapes = {entry["name"]: [1 if isinstance(n, str) else n for n in entry["shape"]] for entry in about["inputs"]}
    dtypes = {entry["name"]: entry["dtype"] for entry in about["inputs"]}
    return LOADING[about["format"]].format(
        arrays="\n".join(f"    {n!r}: np.zeros({shapes[n]}, {dtypes[n]!r}),  # yours" for n in names),
        tensors="\n".join(f"{n} = torch.zeros({shapes[n]}, dtype=torch.{dtypes[n]})  # yours" for n in names),
        call=about["call"],
        imports="\n".join([f"from {about['arch_module']} import {kind}", *about["imports"]]),
        kind=kind,
    )


def _tensor_rows(about: Mapping[str, Any]) -> list[list[str]]:
    return [
        [f"`{entry['name']}`", what, entry["dtype"], ", ".join(map(str, entry["shape"]))]
        for what, entries in (("input", about["inputs"]), ("output", about["outputs"]))
        for entry in entries
    ]


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _columns(about: Mapping[str, Any]) -> list[str]:
    """Return what the columns of a table are called and hold: texts, or their codes where the file wants these."""
    table = about["facts"].get("table")
    if table is None:
        names = ", ".join(f"`{name}`" for name in about["columns"])
        return [f"The columns of the features, in this order: {names}.\n"] if names else []
    takes_text = any(entry["dtype"] == "str" for entry in about["inputs"])
    rows = [[f"`{column['name']}`", column["kind"], *_holds(column, takes_text)] for column in table["columns"]]
    missing = " or ".join(["empty", *(f"`{text}`" for text in table["missing_values"] if text)])
    return [
        f"The columns, in this order. A missing number is NaN, a missing text {missing if takes_text else 'NaN too'}. "
        "The model fills what is missing, by the policy of its column.\n",
        _table(["column", "kind", "holds", "missing"], rows),
    ]


def _holds(column: Mapping[str, Any], takes_text: bool) -> list[str]:
    labels = column["labels"]
    if column["kind"] == "date":
        holds = ", ".join(column["parts"])
    elif column["kind"] == "bool":
        holds = "true or false, as text" if takes_text else "1 or 0"
    elif labels:
        shown = [f"`{label}`" if takes_text else f"{i}: `{label}`" for i, label in enumerate(labels, start=1)]
        more = [f"and {len(shown) - MAX_LABELS} more in {FACTS_FILE}"] if len(shown) > MAX_LABELS else []
        holds = f"{', '.join([*shown[:MAX_LABELS], *more])}; {'any other text' if takes_text else '0: any other'}"
    else:
        holds = "a number"
    policy = "none: refuse it before" if column["missing"] == "error" else column["missing"]
    return [holds.replace("|", "\\|").replace("\n", " "), policy]


def _classes(about: Mapping[str, Any]) -> list[str]:
    function = about["probabilities"]
    if not function:
        return []
    says = "The outputs are probabilities" if function == "identity" else f"Probabilities are {function}(outputs)"
    names = ", ".join(f"`{name}`" for name in about["classes"] or ())
    return [f"{says}{f', of the classes {names}, in this order' if names else ''}.\n"]


def _metrics(test: Mapping[str, Any]) -> list[str]:
    if not test.get("metrics"):
        return ["No test.json: `python test.py -r RUN` measures the run, and another export has the result.\n"]
    rows = [[name, "NaN" if value is None else f"{value:.6g}"] for name, value in test["metrics"].items()]
    where = f"On {test['num_samples']:,} test samples, {test['checkpoint']} of epoch {test['epoch']}:\n"
    return [where, _table(["metric", "value"], rows)]
