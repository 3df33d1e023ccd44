"""Everything in a config that names a type: its sections, and the arguments in these that name types again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from parse_config.options import Options
from parse_config.slot import LR_LAMBDA, Slot

MAX_SECTIONS = 100  # in a list, such as the metrics
Slots = Mapping[str, Slot | type[Options]]


def section_slots(slots: Slots) -> dict[str, Slot]:
    """Return the slots that a section of the config has, by its key; the others are those of arguments."""
    return {key: slot for key, slot in slots.items() if isinstance(slot, Slot) and slot.is_section and key != LR_LAMBDA}


def nested_slots(slot: Slot, slots: Slots) -> dict[str, tuple[str, Slot]]:
    """Return (key in `slots`, slot) of each argument of the slot's types that names types again, by its name."""
    table: dict[str, Any] = {LR_LAMBDA: Slot((), num_inputs=1), **slots}
    return {argument: (key, table[key]) for argument, key in {LR_LAMBDA: LR_LAMBDA, **slot.nested}.items()}


def as_section(value: Any) -> Any:
    """Return a section that is a bare string as the `type` that it is."""
    return {"type": value} if isinstance(value, str) else value


def names_in(value: Any, slot: Slot) -> list[str]:
    """Return the names of several sections in `value`; [] where it is one section, well written or not.

    An object is of several where its slot allows it, and what is under other keys than a section's own says so.
    """
    if not slot.named or not isinstance(value, dict):
        return []
    names = [name for name in value if name not in slot.keys.model_fields]
    objects = [value[name] for name in names if isinstance(value[name], dict)]
    are_sections = any("type" in section for section in objects) or 0 < len(objects) == len(value)
    return names if are_sections else []


def subsections(section: Any) -> dict[str, Any]:
    """Return the sections that a key of a checked config has, by their names; a single one by the name ""."""
    if not section:
        return {}
    is_several = isinstance(section, dict) and all(isinstance(one, dict) and "type" in one for one in section.values())
    return section if is_several else {"": section}


def entries(value: Any, path: str, slot: Slot | None = None) -> Iterator[tuple[str, Any]]:
    """Yield (path, section) of one section, or of each in a list, or in an object of several by name."""
    if isinstance(value, list):
        yield from ((f"{path}[{index}]", entry) for index, entry in enumerate(value[:MAX_SECTIONS]))
    elif slot is not None and (names := names_in(value, slot)):
        yield from ((f"{path}.{name:.80}", value[name]) for name in names[:MAX_SECTIONS])
    else:
        yield path, value


def sections(config: Mapping[str, Any], slots: Slots) -> Iterator[tuple[str, dict[str, Any], Slot]]:
    """Yield (path, section, slot) of everything that the config names a type for, outer ones first.

    A bare string is a type. Malformed args, which are for the schema to report, are none.
    """
    for key, slot in section_slots(slots).items():
        for path, entry in entries(config.get(key), key, slot):
            yield from _named(path, entry, slot, slots)


def _named(path: str, entry: Any, slot: Slot, slots: Slots) -> Iterator[tuple[str, dict[str, Any], Slot]]:
    section = as_section(entry)
    if not isinstance(section, dict) or not isinstance(section.get("type"), str):
        return
    args = section.get("args")
    section = {**section, "args": args if isinstance(args, dict) else {}}
    yield path, section, slot
    for inner_path, _, inner_slot, inner_entry in nested_entries(path, section, slot, slots):
        yield from _named(inner_path, inner_entry, inner_slot, slots)


def nested_entries(
    path: str, section: Mapping[str, Any], slot: Slot, slots: Slots
) -> Iterator[tuple[str, str, Slot, Any]]:
    """Yield (path, key of its slot, slot, section) of each type that an argument of the section at `path` names."""
    nested = nested_slots(slot, slots)
    for name in (name for name in section["args"] if name in nested and section["args"][name] is not None):
        key, inner_slot = nested[name]
        for inner_path, entry in entries(section["args"][name], f"{path}.args.{name}"):
            if not is_expression(key, entry):
                yield inner_path, key, inner_slot, entry


def is_expression(key: str, entry: Any) -> bool:
    """Whether `entry`, for the slot `key`, is arithmetic rather than the name of a type."""
    return key == LR_LAMBDA and isinstance(entry, str)


def is_outer(path: str) -> bool:
    """Whether `path` is that of a section of the config, rather than of an argument in one."""
    return ".args." not in path
