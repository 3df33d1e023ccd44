"""What editors and readers need to know of the config, from the definitions that check it: JSON schema and table."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import pydantic
import torch

from parse_config.options import Options
from parse_config.schema import MAX_SECTIONS, Slots, config_model, fields, project_slots, sections
from parse_config.slot import Slot
from utils.annotations import annotations_of

BEGIN, END = "<!-- config reference: made by make docs -->", "<!-- end of config reference -->"


def json_schema(slots: Slots) -> dict[str, Any]:
    """Return the JSON schema of a config: every key, and for every section its types and their arguments."""
    schema = config_model(slots).model_json_schema()
    schema["title"] = "Config of a training run"
    properties, needed = schema["properties"], {}
    for key, slot in slots.items():
        if isinstance(slot, Slot) and key in properties:
            properties[key] = {"description": slot.description, **_section_schema(slot)}
            if not slot.many:
                needed[key] = {"if": {"type": "object"}, "then": {"required": ["type"]}}
        elif isinstance(slot, type) and "required" in schema["$defs"][slot.__name__]:
            needed[key] = {"required": schema["$defs"][slot.__name__].pop("required")}
    schema["if"] = {"not": {"required": ["extends"]}}  # a config that extends others may have the rest from them
    schema["then"] = {"required": schema.pop("required"), "properties": needed}
    schema["$comment"] = f"made by train.py --schema with torch {torch.__version__.split('+')[0]}"
    properties["$schema"] = {"type": "string", "description": "for editors: the path of this file"}
    properties["extends"] = {
        "description": "config or configs that this one extends, relative to it",
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
    }
    _allow_comments(schema)
    return schema


def reference_table(slots: Slots) -> str:
    """Return the config reference as a Markdown table, a row for each key."""
    rows = ["| key | default | meaning |", "|---|---|---|"]
    for path, field in fields(config_model(slots)):
        if isinstance(slots.get(path), type):  # its keys have rows of their own
            continue
        value = {} if isinstance(field.default, Options) else field.default
        default = "–" if field.is_required() else f"`{json.dumps(value)}`"
        rows.append(f"| `{path}` | {default} | {(field.description or '').replace('|', '/')} |")
    return "\n".join(rows) + "\n"


def dotted_paths(slots: Slots, config: Mapping[str, Any]) -> list[str]:
    """Return every path that --set takes for `config`: the keys of the schema, and the arguments of its types."""
    paths = [path for path, _ in fields(config_model(slots)) if not isinstance(slots.get(path), type)]
    for path, section, slot in sections(config, slots):
        parameters = slot.parameters(slot.find(section["type"], f"{path}.type"))
        paths += [f"{path}.type", *(f"{path}.args.{name}" for name in parameters)] if "." not in path else []
    return paths


def with_reference(text: str, slots: Slots) -> str:
    """Return `text` with the reference table between its two markers made again."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{reference_table(slots)}{END}{after}"


def _section_schema(slot: Slot) -> dict[str, Any]:
    types = dict(slot.types())
    own = {name: obj for name, obj in types.items() if not obj.__module__.startswith("torchmetrics")}
    section: dict[str, Any] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            **slot.keys.model_json_schema()["properties"],
            "type": {"enum": list(types)},
            "args": {"type": "object"},
        },
        # Torchmetrics' arguments are left to the check at start: there are thousands.
        "allOf": [_args_schema(slot, name, obj) for name, obj in own.items()],
    }
    if slot.many:
        return {"type": "array", "maxItems": MAX_SECTIONS, "items": {"anyOf": [{"enum": list(types)}, section]}}
    alternatives: list[dict[str, Any]] = [section]
    if slot.num_inputs is not None:  # what a function can be is a bare name too
        alternatives.append({"enum": list(types)})
    if not slot.required:
        alternatives.append({"type": "null"})
    return section if len(alternatives) == 1 else {"anyOf": alternatives}


def _allow_comments(schema: Any) -> None:
    """Allow keys that begin with "_" wherever a schema allows no others, in place."""
    for value in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else []:
        _allow_comments(value)
    if isinstance(schema, dict) and schema.get("additionalProperties") is False:
        schema["patternProperties"] = {"^_": {}}


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
    path.write_text(with_reference(path.read_text(encoding="utf-8"), project_slots()), encoding="utf-8")
