"""What editors and readers need to know of the config, from the definitions that check it: JSON schema and table."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import pydantic
import torch
from pydantic.fields import FieldInfo

from utils.annotations import annotations_of
from utils.config_schema import NESTED, MetricSection, RunConfig
from utils.slot import Slot

BEGIN, END = "<!-- config reference: made by make docs -->", "<!-- end of config reference -->"

SECTIONS = ("arch", "data_loader", "optimizer", "loss", "lr_scheduler")


def json_schema(slots: Mapping[str, Slot]) -> dict[str, Any]:
    """Return the JSON schema of a config: every key, and for every section its types and their arguments."""
    schema = RunConfig.model_json_schema()
    schema["title"] = "Config of a training run"
    # What one config must have, one that extends others may have from them.
    has_type = {"if": {"type": "object"}, "then": {"required": ["type"]}}
    must_have: dict[str, Any] = {"required": schema.pop("required"), "properties": dict.fromkeys(SECTIONS, has_type)}
    must_have["properties"]["trainer"] = {"required": schema["$defs"]["TrainerSection"].pop("required")}
    schema["if"], schema["then"] = {"not": {"required": ["extends"]}}, must_have
    schema["$comment"] = f"made by train.py --schema with torch {torch.__version__.split('+')[0]}"
    properties = schema["properties"]
    properties["$schema"] = {"type": "string", "description": "for editors: the path of this file"}
    properties["extends"] = {
        "description": "config or configs that this one extends, relative to it",
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
    }
    for key, slot in slots.items():
        if key == "lr_lambda":  # an argument of LambdaLR, not a section
            continue
        section = _section_schema(slot, RunConfig.model_fields.get(key))
        description = properties.get(key, {}).get("description")
        properties[key] = {**({"description": description} if description else {}), **section}
    return schema


def reference_table() -> str:
    """Return the config reference as a Markdown table, a row for each key."""
    rows = ["| key | default | meaning |", "|---|---|---|"]
    for path, field in _fields():
        default = "–" if field.is_required() else f"`{json.dumps(field.default)}`"
        rows.append(f"| `{path}` | {default} | {(field.description or '').replace('|', '/')} |")
    return "\n".join(rows) + "\n"


def _fields() -> Iterator[tuple[str, FieldInfo]]:
    """Yield every key of the schema by its path."""
    models: dict[str, type[pydantic.BaseModel]] = {"": RunConfig, **NESTED}
    for section, model in models.items():
        for name, field in model.model_fields.items():
            if name != "trainer":
                yield f"{section}.{name}".lstrip("."), field


def dotted_paths(slots: Mapping[str, Slot], config: Mapping[str, Any]) -> list[str]:
    """Return every path that --set takes for `config`: the keys of the schema, and the arguments of its types."""
    paths = [path for path, _ in _fields()]
    for key, slot in slots.items():
        section = config.get(key)
        if isinstance(section, dict) and "type" in section:
            parameters = slot.parameters(slot.find(section["type"], f"{key}.type"))
            paths += [f"{key}.type", *(f"{key}.args.{name}" for name in parameters)]
    return paths


def with_reference(text: str) -> str:
    """Return `text` with the reference table between its two markers made anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{reference_table()}{END}{after}"


def _section_schema(slot: Slot, field: Any) -> dict[str, Any]:
    types = dict(slot.types())
    own = {name: obj for name, obj in types.items() if not obj.__module__.startswith("torchmetrics")}
    section: dict[str, Any] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {"type": {"enum": list(types)}, "args": {"type": "object"}},
        # Torchmetrics' arguments are left to the check at start: there are thousands.
        "allOf": [_args_schema(slot, name, obj) for name, obj in own.items()],
    }
    models = _models(field.annotation) if field else []
    for model in models:
        extra = model.model_json_schema()["properties"]
        section["properties"] = extra | section["properties"]
    if MetricSection in models:
        return {"type": "array", "items": {"anyOf": [{"enum": list(types)}, section]}}
    alternatives: list[dict[str, Any]] = [section]
    if slot.num_inputs is not None:  # what a function can be is a bare name too
        alternatives.append({"enum": list(types)})
    if field and not field.is_required():
        alternatives.append({"type": "null"})
    return section if len(alternatives) == 1 else {"anyOf": alternatives}


def _models(annotation: Any) -> list[type[pydantic.BaseModel]]:
    """Return the pydantic models that an annotation is made of."""
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _args_schema(slot: Slot, name: str, obj: Callable[..., Any]) -> dict[str, Any]:
    """Return the rule: where the type is `name`, the args are those of `obj`."""
    annotations = annotations_of(obj)
    parameters = slot.parameters(obj)
    required = [key for key, parameter in parameters.items() if parameter.default is parameter.empty]
    args = {
        "type": "object",
        "properties": {key: _type_schema(annotations.get(key)) for key in parameters},
        "required": required,
        "additionalProperties": False,
    }
    then: dict[str, Any] = {"properties": {"args": args}, **({"required": ["args"]} if required else {})}
    return {"if": {"properties": {"type": {"const": name}}, "required": ["type"]}, "then": then}


def _type_schema(annotation: Any) -> dict[str, Any]:
    """Return the JSON schema of what is annotated so; {} (anything) where JSON has no such type."""
    if annotation is None:
        return {}
    if annotation is torch.Tensor:  # see with_tensors
        return {"type": "array", "items": {"type": "number"}}
    if get_origin(annotation) in (Union, UnionType):
        parts = [_type_schema(part) for part in get_args(annotation)]
        return {"anyOf": parts} if all(parts) else {}
    try:
        return pydantic.TypeAdapter(annotation).json_schema()
    except Exception:  # pydantic raises several kinds for types that it does not know, such as torch's Tensor
        return {}


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(with_reference(path.read_text(encoding="utf-8")), encoding="utf-8")
