"""Finds every mistake in a config, by its schema and the signatures of what it names; builds nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import islice
from typing import Any

import pydantic
import torch

from parse_config.expression import parse_expression
from parse_config.options import Options
from parse_config.schema import MAX_SECTIONS, Slots, config_model, models_in, sections
from parse_config.slot import Slot
from utils.errors import ConfigError, nearest

TAKEN_NAMES = ("loss", "lr", "perf", "kind", "epoch", "global_step")  # by what is logged beside the metrics
MAX_METRIC_SIZE = 100_000  # torchmetrics takes any number of classes or thresholds, and then all memory
MAX_PROBLEMS = 50  # that are reported at once; a file can hold a hundred thousand


def find_problems(config: dict[str, Any], slots: Slots, unsure: Collection[str] = ()) -> list[str]:
    """Return every mistake in `config`, each as "path: what is wrong; what is right"; of very many the first.

    `unsure` are paths that must be known by name even where a type takes any keyword: those from the command line.
    """
    return list(islice(_problems(config, slots, unsure), MAX_PROBLEMS))


def _problems(config: dict[str, Any], slots: Slots, unsure: Collection[str]) -> Iterator[str]:
    yield from _schema_problems(config_model(slots), config)
    loader = _loader_class(config, slots)
    for path, section, slot in sections(config, slots):
        # What a loader offers by `facts` is known only when it is built; what is missing then is reported then.
        is_complete = not hasattr(loader, "facts") or path == "data_loader"
        yield from _section_problems(path, section, slot, unsure, is_complete)
    yield from _lr_lambda_problems(config, slots)
    yield from _monitor_problems(config, slots)
    yield from _class_problems(config, slots, loader)
    yield from _weight_problems(config)


def find_oddities(config: dict[str, Any]) -> Iterator[str]:
    """Yield what has no effect in a checked config, or hardly the one that was meant."""
    trainer, scheduler = config["trainer"], config.get("lr_scheduler") or {}
    if trainer["monitor"] == "off" and (trainer["early_stop"] or 0) > 0:
        yield f"trainer.early_stop: {trainer['early_stop']} has no effect, as trainer.monitor is off"
    milestones = scheduler.get("args", {}).get("milestones", [])
    if milestones != sorted(set(milestones)):
        yield f"lr_scheduler.args.milestones: {milestones!s:.80} do not increase"
    late = [milestone for milestone in milestones if milestone >= trainer["epochs"]]
    if late and scheduler.get("interval", "epoch") == "epoch":
        yield f"lr_scheduler.args.milestones: {late!s:.80} are never reached: there are {trainer['epochs']} epochs"


def _loader_class(config: dict[str, Any], slots: Slots) -> Any:
    """Return what `data_loader` names, or None where that is a mistake of its own."""
    section, slot = config.get("data_loader"), slots["data_loader"]
    if not isinstance(slot, Slot) or not isinstance(section, dict):
        return None
    try:
        return slot.find(section.get("type"), "data_loader.type")
    except ConfigError:
        return None


def _is_function(entry: Any) -> bool:
    """Whether `entry` names a function with its arguments, and nothing else."""
    if not isinstance(entry, dict) or not entry.keys() <= {"type", "args"}:
        return False
    return isinstance(entry.get("type"), str) and isinstance(entry.get("args", {}), dict)


def _is_named(entry: Any) -> bool:
    return isinstance(entry, str) or (isinstance(entry, dict) and isinstance(entry.get("type"), str))


def metric_name(entry: str | dict[str, Any]) -> str:
    """Return what a metric of the config is called in logs."""
    return entry if isinstance(entry, str) else str(entry.get("name") or entry["type"])


def _section_problems(
    path: str, section: dict[str, Any], slot: Slot, unsure: Collection[str] = (), is_complete: bool = True
) -> Iterator[str]:
    try:
        found = slot.find(section["type"], f"{path}.type")
    except ConfigError as error:
        yield from error.problems
        return
    args = section["args"]
    if not isinstance(args, dict):
        return  # the schema reports it
    yield from slot.problems(found, args, f"{path}.args", unsure, is_complete)
    for name, value in args.items():
        if found.__module__.startswith("torchmetrics") and isinstance(value, int) and value > MAX_METRIC_SIZE:
            yield f"{path}.args.{name}: at most {MAX_METRIC_SIZE:,} can be tried; got {value!r:.40}"


def _lr_lambda_problems(config: dict[str, Any], slots: Slots) -> list[str]:
    section, slot = config.get("lr_scheduler"), slots.get("lr_lambda")
    args = section.get("args") if isinstance(section, dict) else None
    if not isinstance(section, dict) or not isinstance(args, dict) or "lr_lambda" not in args:
        return []
    lambdas = args["lr_lambda"] if isinstance(args["lr_lambda"], list) else [args["lr_lambda"]]
    path = "lr_scheduler.args.lr_lambda"
    if len(lambdas) > MAX_SECTIONS:
        return [f"{path}: {len(lambdas):,} of them; give one for each parameter group"]
    problems: list[str] = []
    for entry in lambdas:
        if isinstance(entry, str):
            try:
                parse_expression(entry, str(section.get("interval", "epoch")))
            except ValueError as error:
                problems.append(f"{path}: {error}")
        elif _is_function(entry) and isinstance(slot, Slot):
            problems += _section_problems(path, {"args": {}, **entry}, slot)
        else:
            problems.append(
                f"{path}: give an expression or a type of model/lr_lambda.py with its args, not {entry!r:.80}"
            )
    return problems


def _monitor_problems(config: dict[str, Any], slots: Slots) -> list[str]:
    trainer, metrics = config.get("trainer"), config.get("metrics", [])
    monitor = trainer.get("monitor", "off") if isinstance(trainer, dict) else "off"
    if not isinstance(monitor, str) or not isinstance(metrics, list):
        return []
    names = [metric_name(entry) for entry in metrics[:MAX_SECTIONS] if _is_named(entry)]
    repeated = sorted({name for name in names if names.count(name) > 1})
    known = [prefix + name for name in ["loss", *names] for prefix in ("val_", "")]
    known += getattr(slots["trainer"], "LOGGED", ())
    problems = [f'metrics: {name!r} appears twice; give one of them a "name"' for name in repeated]
    taken = {*TAKEN_NAMES, *getattr(slots["trainer"], "LOGGED", ())}
    problems += [
        f'metrics: {name!r} is the name of another value in the logs; give the metric another by "name"'
        for name in dict.fromkeys(names)
        if name in taken or name.startswith("val_")
    ]
    followed = monitor.partition(" ")[2]
    if followed and followed.split("/")[0] not in known:
        problems.append(f"trainer.monitor: no metric {followed!r}; {nearest(followed, known)}")
    return problems


def _class_problems(config: dict[str, Any], slots: Slots, loader: Any) -> Iterator[str]:
    """Yield every metric whose `num_classes` is not the data's, and a model with fewer, where the loader knows."""
    known = getattr(loader, "num_classes", None)
    for path, section, _ in sections(config, slots):
        given = section["args"].get("num_classes") if isinstance(section["args"], dict) else None
        if not isinstance(known, int) or not isinstance(given, int):
            continue
        if (path.startswith("metrics.") and given != known) or (path == "arch" and given < known):
            yield f"{path}.args.num_classes: {given}, but the data of {loader.__name__} has {known} classes"


def _weight_problems(config: dict[str, Any]) -> Iterator[str]:
    """Yield weights of classes that make no sense; 0, by which a class is ignored, does."""
    section = config.get("loss")
    args = section.get("args") if isinstance(section, dict) else None
    args = args if isinstance(args, dict) else {}
    for name in ("weight", "pos_weight"):
        weights = args.get(name)
        if not isinstance(weights, list) or not all(type(weight) in (int, float) for weight in weights):
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
            path = ".".join(f"{part!s:.80}" for part in item["loc"])
            keys = [part for part in item["loc"] if isinstance(part, str)]  # places in a list do not matter
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
    """Return the model of the section at a path."""
    for key in keys:
        schema = models_in(schema.model_fields[key].annotation)[0]
    return schema
