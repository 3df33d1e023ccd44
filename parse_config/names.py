"""Checks the names of several sections of one kind, and the classes that plain keys such as `trainer.type` name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from parse_config.named import Slots, names_in, section_slots
from parse_config.slot import Slot
from utils.errors import ConfigError, nearest
from utils.nested import Models


def name_problems(config: Mapping[str, Any], slots: Slots) -> Iterator[str]:
    """Yield which names cannot be, what does not go beside several sections, and what belongs to none of them."""
    slots_by_key = section_slots(slots)
    for key, slot in slots_by_key.items():
        names = names_in(config.get(key), slot)
        for name in (name for name in names if not name.isidentifier() or hasattr(Models, name)):
            yield f"{key}.{name:.80}: cannot be the name of a section; give a word, as in {key}.generator"
        for other in (other for other in slot.keys.model_fields if names and other in config[key]):
            yield f"{key}.{other}: there are several sections; give it in each, as in {key}.{names[0]}.{other}"
        for owner in (owner for owner in slot.provided if owner in slots_by_key and config.get(key)):
            owners = names_in(config.get(owner), slots_by_key[owner])
            if owners and not names:
                yield f"{key}: there are several of {owner}; give each its own, as in {key}.{owners[0]}"
            if names and not owners:
                yield f"{key}: there is one {owner}; give one {key} too, without a name"
            for name in (name for name in names if owners and name not in owners):
                yield f"{key}.{name:.80}: there is no {owner} of this name; {nearest(name, owners)}"
    for path, slot in class_keys(slots).items():
        section, key = path.split(".")
        named = config[section].get(key) if isinstance(config.get(section), dict) else None
        if isinstance(named, str):  # anything else is for the schema to report
            try:
                slot.find(named, path)
            except ConfigError as error:
                yield from error.problems


def class_keys(slots: Slots) -> dict[str, Slot]:
    """Return the slots of plain keys that name a class or function, by their paths, such as "trainer.type"."""
    return {path: slot for path, slot in slots.items() if isinstance(slot, Slot) and "." in path}
