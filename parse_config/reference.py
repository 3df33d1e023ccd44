"""What editors and readers need to know of the config, from the definitions that check it: JSON schema and table."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from enum import Enum
from numbers import Number
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import pydantic
import torch

from parse_config.groups import MATCH, MAX_GROUPS
from parse_config.named import LR_LAMBDA, MAX_SECTIONS, Slots, nested_slots, sections
from parse_config.names import class_keys
from parse_config.options import Options, Section
from parse_config.schema import config_model, fields, project_slots
from parse_config.slot import Slot
from parse_config.type_check import DTYPES, arity, type_problem
from utils.annotations import annotations_of

BEGIN, END = "<!-- config reference: made by make docs -->", "<!-- end of config reference -->"


def json_schema(slots: Slots) -> dict[str, Any]:
    """Return the JSON schema of a config: every key, and for every section its types and their arguments."""
    schema = config_model(slots).model_json_schema()
    schema["title"] = "Config of a training run"
    properties, needed = schema["properties"], {}
    for key, slot in slots.items():
        if isinstance(slot, Slot) and key in properties:
            if slot.named:
                schema["$defs"][f"one_{key}"] = _typed_schema(slot, dict(slot.types()), slot.keys, slots)
            properties[key] = {"description": slot.description, **_section_schema(key, slot, slots)}
            if not slot.many:
                several = [{"additionalProperties": {"required": ["type"]}}] * slot.named
                needed[key] = {"if": {"type": "object"}, "then": {"anyOf": [{"required": ["type"]}, *several]}}
        elif isinstance(slot, type) and "required" in schema["$defs"][slot.__name__]:
            needed[key] = {"required": schema["$defs"][slot.__name__].pop("required")}
    for path, slot in class_keys(slots).items():
        section, _, key = path.partition(".")
        own = schema["$defs"][slots[section].__name__]["properties"][key]  # type: ignore[union-attr]
        own["anyOf"] = [{"enum": [name for name, _ in slot.types()]}, {"type": "null"}]
    for key, slot in _argument_slots(slots).items():
        schema["$defs"][key] = _argument_schema(key, slot, slots)
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
        slot = slots.get(path)
        for name, (_, inner) in nested_slots(slot, slots).items() if isinstance(slot, Slot) else ():
            if name != LR_LAMBDA or path == "lr_scheduler":
                rows.append(f"| `{path}.args.{name}` | – | {inner.description} |")
    return "\n".join(rows) + "\n"


def dotted_paths(slots: Slots, config: Mapping[str, Any]) -> list[str]:
    """Return every path that --set takes for `config`: the keys of the schema, and the arguments of its types.

    A place in a list is a number between dots, which no shell takes for a pattern.
    """
    paths = [path for path, _ in fields(config_model(slots)) if not isinstance(slots.get(path), type)]
    for path, section, slot in sections(config, slots):
        parameters = slot.parameters(slot.find(section["type"], f"{path}.type"))
        paths += [f"{path}.type", *(f"{path}.args.{name}" for name in parameters)]
    return [path.replace("[", ".").replace("]", "") for path in paths]


def with_reference(text: str, slots: Slots) -> str:
    """Return `text` with the reference table between its two markers made again."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{reference_table(slots)}{END}{after}"


def _argument_slots(slots: Slots) -> dict[str, Slot]:
    """Return the slots that arguments name types of, by their keys."""
    nested = [nested_slots(slot, slots).values() for slot in slots.values() if isinstance(slot, Slot)]
    return {key: slot for pairs in nested for key, slot in pairs}


def _argument_schema(key: str, slot: Slot, slots: Slots) -> dict[str, Any]:
    """Return the schema of an argument that names a type of `slot`: a section of `type` and `args`, or a bare name."""
    types = dict(slot.types())
    name = {"type": "string"} if key == LR_LAMBDA else {"enum": list(types)}
    return {"anyOf": [name, _typed_schema(slot, types, Section, slots)]}


def _typed_schema(slot: Slot, types: dict[str, Any], keys: type[Section], slots: Slots) -> dict[str, Any]:
    """Return the schema of a section that names one of `types`, with its arguments; `keys` are its keys."""
    own = {name: obj for name, obj in types.items() if not obj.__module__.startswith("torchmetrics")}
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            **keys.model_json_schema()["properties"],
            "type": {"enum": list(types)},
            "args": {"type": "object"},
        },
        # Torchmetrics' arguments are left to the check at start: there are thousands.
        "allOf": [_args_schema(slot, name, obj, slots) for name, obj in own.items()],
    }


def _section_schema(key: str, slot: Slot, slots: Slots) -> dict[str, Any]:
    types = dict(slot.types())
    section = {"$ref": f"#/$defs/one_{key}"} if slot.named else _typed_schema(slot, types, slot.keys, slots)
    if slot.many:
        return {"type": "array", "maxItems": MAX_SECTIONS, "items": {"anyOf": [{"enum": list(types)}, section]}}
    alternatives: list[dict[str, Any]] = [section]
    if slot.named:
        several = {"type": "object", "minProperties": 1, "maxProperties": MAX_SECTIONS, "additionalProperties": False}
        alternatives.append({**several, "patternProperties": {r"^[A-Za-z]\w*$": section}})
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
        schema.setdefault("patternProperties", {})["^_"] = {}


def _args_schema(slot: Slot, name: str, obj: Callable[..., Any], slots: Slots) -> dict[str, Any]:
    """Return the rule: where the type is `name`, the args are those of `obj`."""
    annotations = annotations_of(obj)
    parameters = slot.parameters(obj)
    required = [key for key, parameter in parameters.items() if parameter.default is parameter.empty]
    properties = {key: _type_schema(annotations.get(key)) for key in parameters}
    for argument, (key, _) in nested_slots(slot, slots).items():
        if argument in parameters:
            properties[argument] = _nested_schema(annotations.get(argument), key)
    if slot.groups:
        properties[slot.groups] = _groups_schema(properties)
    args = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    then: dict[str, Any] = {"properties": {"args": args}, **({"required": ["args"]} if required else {})}
    return {"if": {"properties": {"type": {"const": name}}, "required": ["type"]}, "then": then}


def _nested_schema(annotation: Any, key: str) -> dict[str, Any]:
    """Return the schema of an argument that names a type of the slot `key`, or a list of such."""
    one = {"$ref": f"#/$defs/{key}"}
    several = {"type": "array", "maxItems": MAX_SECTIONS, "items": {**one, "required": ["type"]}}
    takes_one, takes_list = arity(annotation)
    parts = [one] * takes_one + [several] * takes_list
    return {"anyOf": [*parts, {"type": "null"}] if type_problem(annotation, None) is None else parts}


def _groups_schema(options: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of parameter groups that have a pattern and any of `options`."""
    group = {"type": "object", "properties": {MATCH: {"type": "string"}, **options}, "required": [MATCH]}
    return {
        "type": "array",
        "minItems": 1,
        "maxItems": MAX_GROUPS,
        "items": {**group, "additionalProperties": False},
    }


def _type_schema(annotation: Any) -> dict[str, Any]:
    """Return the JSON schema of what is annotated so; {} (anything) where JSON has no such type."""
    if annotation is None:
        return {}
    if annotation is torch.Tensor:  # see with_tensors
        return {"type": "array", "items": {"type": "number"}}
    if annotation is Number:
        return {"type": "number"}
    if annotation is torch.dtype:
        return {"enum": list(DTYPES)}
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return {"enum": [member.value for member in annotation]}
    if get_origin(annotation) in (Union, UnionType):
        parts = [_type_schema(part) for part in get_args(annotation)]
        return {"anyOf": parts} if all(parts) else {}
    try:
        return pydantic.TypeAdapter(annotation).json_schema()
    except Exception:  # pydantic raises several kinds for types that it does not know, such as torch's Tensor
        return {"type": "object"} if get_origin(annotation) is dict else {}


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(with_reference(path.read_text(encoding="utf-8"), project_slots()), encoding="utf-8")
