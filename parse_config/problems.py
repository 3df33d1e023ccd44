"""Finds every mistake in a config, by its schema and the signatures of what it names; builds nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from itertools import islice
from typing import Any

import pydantic
import torch

from parse_config.expression import parse_expression
from parse_config.named import (
    MAX_SECTIONS,
    Slots,
    as_section,
    entries,
    is_expression,
    is_outer,
    nested_slots,
    sections,
    subsections,
)
from parse_config.names import name_problems
from parse_config.options import Options, Section
from parse_config.schema import ONE, SEVERAL, config_model, models_in
from parse_config.slot import Slot
from parse_config.type_check import arity, is_number_list
from utils.annotations import annotations_of
from utils.errors import ConfigError, nearest
from utils.nested import first_key

TAKEN_NAMES = ("loss", "lr", "perf", "kind", "epoch", "global_step")  # by other values in the logs
MAX_METRIC_SIZE = 100_000  # torchmetrics takes any number of classes or thresholds, and then all memory
MAX_PROBLEMS = 50  # that are reported at once; a file can hold a hundred thousand


def find_problems(config: dict[str, Any], slots: Slots, unsure: Collection[str] = ()) -> list[str]:
    """Return every mistake in `config`, each as "path: what is wrong; what is right"; at most MAX_PROBLEMS.

    `unsure` are the paths from the command line, which must be known even where a type takes any keyword.
    """
    return list(islice(_problems(config, slots, unsure), MAX_PROBLEMS))


def _problems(config: dict[str, Any], slots: Slots, unsure: Collection[str]) -> Iterator[str]:
    yield from _schema_problems(config_model(slots), config)
    yield from name_problems(config, slots)
    named = list(sections(config, slots))
    loader = _loader_class(named)
    outer: dict[str, Any] = {}
    for path, section, slot in named:
        # A loader's `facts` are known only when it is built; what is missing then is reported then.
        is_complete = not hasattr(loader, "facts") or first_key(path) == "data_loader"
        yield from _section_problems(path, section, slot, unsure, is_complete)
        outer = section if is_outer(path) else outer
        yield from _nested_problems(path, section, slot, slots, str(outer.get("interval", "epoch")))
        yield from _class_problems(path, section["args"], loader)
        if path == "loss":
            yield from _weight_problems(section["args"])
    logged = getattr(slots["trainer"], "LOGGED", ())
    metrics = [metric_name(section) for path, section, _ in named if is_outer(path) and first_key(path) == "metrics"]
    yield from _metric_problems(metrics, {*TAKEN_NAMES, *logged})
    known = [prefix + name for name in ("loss", *metrics) for prefix in ("val_", "")]
    yield from _monitor_problems(config.get("trainer"), [*known, *logged])


def find_oddities(config: dict[str, Any]) -> Iterator[str]:
    """Yield the settings of a checked config that have no effect, or hardly the intended one."""
    trainer = config["trainer"]
    if trainer["monitor"] == "off" and (trainer["early_stop"] or 0) > 0:
        yield f"trainer.early_stop: {trainer['early_stop']} has no effect, as trainer.monitor is off"
    if trainer["monitor"] == "off" and trainer["keep_best"] > 1:
        yield f"trainer.keep_best: {trainer['keep_best']} has no effect, as trainer.monitor is off"
    for epoch in (key for key in config["fine_tune"]["unfreeze_at"] if int(key) > trainer["epochs"]):
        yield f"fine_tune.unfreeze_at.{epoch}: is never reached: trainer.epochs is {trainer['epochs']}"
    optimizers = subsections(config.get("optimizer"))
    for name, scheduler in subsections(config.get("lr_scheduler")).items():
        path = f"lr_scheduler.{name}".rstrip(".")
        yield from _schedule_oddities(path, scheduler, optimizers.get(name, {}), trainer["epochs"])


def _schedule_oddities(
    path: str, scheduler: dict[str, Any], optimizer: dict[str, Any], num_epochs: int
) -> Iterator[str]:
    has_rates = optimizer.get("layer_decay") or any(
        "lr" in group for group in optimizer.get("args", {}).get("params", [])
    )
    if has_rates and isinstance(scheduler.get("args", {}).get("max_lr"), int | float):
        yield f"{path}.args.max_lr: one value replaces the learning rates of all groups; give a list of them"
    milestones = scheduler.get("args", {}).get("milestones", [])
    if milestones != sorted(set(milestones)):
        yield f"{path}.args.milestones: {milestones!s:.80} do not increase"
    late = [milestone for milestone in milestones if milestone >= num_epochs]
    if late and scheduler.get("interval", "epoch") == "epoch":
        yield f"{path}.args.milestones: {late!s:.80} are never reached: trainer.epochs is {num_epochs}"


def _loader_class(named: list[tuple[str, dict[str, Any], Slot]]) -> Any:
    """Return what `data_loader` names, or None where that is a mistake of its own."""
    for path, section, slot in named:
        if path == "data_loader":
            with suppress(ConfigError):
                return slot.find(section["type"], path)
    return None


def metric_name(section: dict[str, Any]) -> str:
    """Return what a metric of the config is called in logs."""
    return str(section.get("name") or section["type"])


def _section_problems(
    path: str, section: dict[str, Any], slot: Slot, unsure: Collection[str] = (), is_complete: bool = True
) -> Iterator[str]:
    try:
        found = slot.find(section["type"], f"{path}.type")
    except ConfigError as error:
        yield from error.problems
        return
    yield from slot.problems(found, section["args"], f"{path}.args", unsure, is_complete)
    for name, value in section["args"].items():
        if found.__module__.startswith("torchmetrics") and isinstance(value, int) and value > MAX_METRIC_SIZE:
            yield f"{path}.args.{name}: at most {MAX_METRIC_SIZE:,} can be tried; got {value!r:.40}"


def _nested_problems(path: str, section: dict[str, Any], slot: Slot, slots: Slots, variable: str) -> Iterator[str]:
    """Yield where arguments that name types are malformed; the types themselves are sections like others."""
    nested, args = nested_slots(slot, slots), section["args"]
    try:
        annotations = annotations_of(slot.find(section["type"], path))
    except ConfigError:  # which is reported
        return
    for name in (name for name in args if name in nested and args[name] is not None):
        key, inner = nested[name]
        takes_one, takes_list = arity(annotations.get(name))
        where, given = f"{path}.args.{name}", args[name]
        if isinstance(given, list) and len(given) > MAX_SECTIONS:
            yield f"{where}: at most {MAX_SECTIONS} can be given; got {len(given):,}"
        elif not (takes_list if isinstance(given, list) else takes_one):
            yield f"{where}: {'give a list' if takes_list else 'give one, not a list'}; got {given!r:.80}"
        for entry_path, entry in entries(given, where):
            if is_expression(key, entry):
                yield from _expression_problems(entry_path, entry, variable)
            elif isinstance(entry, dict | str):
                problems = _schema_problems(Section, as_section(entry))
                yield from (f"{entry_path}.{problem}" for problem in problems)
            else:
                kind = inner.description or "a type"
                yield f'{entry_path}: give {kind}, as {{"type": …, "args": …}}; got {entry!r:.80}'


def _expression_problems(path: str, text: str, variable: str) -> Iterator[str]:
    try:
        parse_expression(text, variable)
    except ValueError as error:
        yield f"{path}: {error}"


def _metric_problems(names: list[str], taken: set[str]) -> Iterator[str]:
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            yield f'metrics: {name!r} appears twice; give one of them a "name"'
        if name in taken or name.startswith("val_"):
            yield f'metrics: {name!r} is the name of another value in the logs; give the metric another by "name"'


def _monitor_problems(trainer: Any, known: list[str]) -> Iterator[str]:
    monitor = trainer.get("monitor") if isinstance(trainer, dict) else None
    followed = monitor.partition(" ")[2] if isinstance(monitor, str) else ""
    if followed and followed.split("/")[0] not in known:
        yield f"trainer.monitor: no metric {followed!r}; {nearest(followed, known)}"


def _class_problems(path: str, args: dict[str, Any], loader: Any) -> Iterator[str]:
    """Yield where a metric's `num_classes` is not the data's, or a model has fewer, as far as the loader knows."""
    known, given = getattr(loader, "num_classes", None), args.get("num_classes")
    if not isinstance(known, int) or not isinstance(given, int):
        return
    if (first_key(path) == "metrics" and given != known) or (path == "arch" and given < known):
        yield f"{path}.args.num_classes: {given}, but the data of {loader.__name__} has {known} classes"


def _weight_problems(args: dict[str, Any]) -> Iterator[str]:
    """Yield weights of classes that make no sense; 0, by which a class is ignored, does."""
    for name in ("weight", "pos_weight"):
        weights: Any = args.get(name)
        if not is_number_list(weights):
            continue  # none, or reported as of the wrong type
        wrong = [weight for weight in weights if not 0 <= weight <= torch.finfo(torch.float32).max]
        if wrong or not any(weights):
            reason = f"{wrong[0]!r:.40} is not a weight" if wrong else "no class has a weight above 0"
            yield f"loss.args.{name}: {reason}; give a number of 0 or more for each class"


def _schema_problems(schema: type[Options], config: dict[str, Any]) -> Iterator[str]:
    """Yield pydantic's findings in our words, each with its path and, for an unknown key, the nearest one."""
    try:
        schema.model_validate(config)
    except pydantic.ValidationError as error:
        for item in error.errors():
            places = [part for part in item["loc"] if part not in (ONE, SEVERAL)]
            parts = [f"[{part}]" if isinstance(part, int) else f".{part!s:.80}" for part in places]
            path = "".join(parts).removeprefix(".")
            keys = [part for part in places if isinstance(part, str)]  # places in a list do not matter
            section = _model_at(schema, keys[:-1])
            if item["type"] == "extra_forbidden":
                yield f"{path}: unknown key; {nearest(keys[-1], section.model_fields)}"
            elif item["type"] == "missing":
                yield f"{path}: missing"
            elif item["type"] == "string_pattern_mismatch":
                yield f"{path}: {item['input']!r:.80} is not allowed here; {section.model_fields[keys[-1]].description}"
            else:
                yield f"{path}: {item['msg']}; got {item['input']!r:.80}"


def _model_at(schema: type[Options], keys: list[str]) -> type[Options]:
    """Return the model of the section at a path; names of sections do not matter."""
    for key in (key for key in keys if key in schema.model_fields):
        schema = models_in(schema.model_fields[key].annotation)[0]
    return schema
