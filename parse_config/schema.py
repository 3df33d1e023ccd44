"""The schema of a whole config, put together from slots.py, and what it says of each key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from importlib import import_module
from typing import Annotated, Any, get_args

import pydantic
from pydantic import BeforeValidator, Discriminator, Field, Tag
from pydantic.fields import FieldInfo

from parse_config.named import MAX_SECTIONS, Slots, as_section, names_in, section_slots, sections
from parse_config.options import Options, RunConfig, Section
from parse_config.slot import Slot
from utils.annotations import Mark, annotations_of
from utils.errors import ConfigError

ONE, SEVERAL = "<one>", "<several>"  # which form a section has, in the places that pydantic reports


def project_slots() -> Slots:
    """Return the table in the project's slots.py, which the published template's signatures do not name."""
    slots: Slots = import_module("slots").SLOTS
    return slots


def config_model(slots: Slots) -> type[RunConfig]:
    """Return the pydantic model of a config whose sections are those of `slots`."""
    fields: dict[str, Any] = {}
    for key, slot in slots.items():
        if isinstance(slot, type):
            is_required = any(field.is_required() for field in slot.model_fields.values())
            fields[key] = (slot, Field(default=... if is_required else {}, description=slot.__doc__))
        elif key in section_slots(slots):
            fields[key] = _slot_field(slot)
    return pydantic.create_model("Config", __base__=RunConfig, **fields)


def _slot_field(slot: Slot) -> tuple[Any, Any]:
    section: Any = slot.keys
    if slot.num_inputs is not None:  # what a function can be is a bare name too
        section = Annotated[section, BeforeValidator(as_section, json_schema_input_type=str | section)]
    if slot.many:
        return list[section], Field(default=[], max_length=MAX_SECTIONS, description=slot.description)
    if slot.named:
        known = BeforeValidator(lambda value: {name: value[name] for name in names_in(value, slot)})
        several = Annotated[dict[str, section], Field(max_length=MAX_SECTIONS), known, Tag(SEVERAL)]
        form = Discriminator(lambda value: SEVERAL if names_in(value, slot) else ONE)
        section = Annotated[Annotated[section, Tag(ONE)] | several, form]
    if slot.required:
        return section, Field(description=slot.description)
    return section | None, Field(default=None, description=slot.description)


def models_in(annotation: Any) -> list[type[Options]]:
    """Return the sections that an annotation is made of."""
    if isinstance(annotation, type) and issubclass(annotation, Options):
        return [annotation]
    return [model for part in get_args(annotation) for model in models_in(part)]


def plain_sections(model: type[Options], prefix: str = "") -> Iterator[tuple[str, type[Options]]]:
    """Yield (path, model) of `model` and of every section of plain keys in it, outer ones first; "" is the top."""
    yield prefix, model
    for key, field in model.model_fields.items():
        for inner in models_in(field.annotation):
            if not issubclass(inner, Section):
                yield from plain_sections(inner, f"{prefix}.{key}".lstrip("."))


def fill_defaults(model: type[Options], config: dict[str, Any]) -> None:
    """Give every plain key that is missing in `config` its default, in place."""
    for path, section_model in plain_sections(model):
        section: Any = config
        for key in path.split(".") if path else []:
            section = section.get(key) if isinstance(section, dict) else None
        if isinstance(section, dict):
            for key, field in section_model.model_fields.items():
                if not field.is_required():
                    is_section = isinstance(field.default, Options)  # whose own keys are filled in next
                    section.setdefault(key, {} if is_section else deepcopy(field.default))


def fields(model: type[Options]) -> Iterator[tuple[str, FieldInfo]]:
    """Yield every plain key by its path."""
    for section, section_model in plain_sections(model):
        for name, field in section_model.model_fields.items():
            yield f"{section}.{name}".lstrip("."), field


def marked(slots: Slots, config: Mapping[str, Any], mark: Mark) -> set[str]:
    """Return the paths of the keys, and of the arguments of the types in `config`, that bear `mark`."""
    paths = {path for path, field in fields(config_model(slots)) if mark in field.metadata}
    for path, section, slot in sections(config, slots):
        try:
            found = slot.find(section["type"], path)
        except ConfigError:  # of a config that was saved by other code
            continue
        classes = found.__mro__ if isinstance(found, type) else (found,)  # what a base class says holds below
        for name in {name for cls in classes for name, hint in annotations_of(cls).items() if _bears(hint, mark)}:
            paths.add(f"{path}.args.{name}")
    return paths


def _bears(annotation: Any, mark: Mark) -> bool:
    return mark in getattr(annotation, "__metadata__", ()) or any(_bears(part, mark) for part in get_args(annotation))
