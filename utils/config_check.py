"""Checks a whole config against its schema and against the signatures of what it names; builds nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pydantic

from utils.config_schema import NESTED, MetricSection, RunConfig, SchedulerSection, Section
from utils.errors import ConfigError, nearest
from utils.expression import parse_expression
from utils.slot import Slot

MODELS: dict[str, type[pydantic.BaseModel]] = {**NESTED, "metrics": MetricSection, "lr_scheduler": SchedulerSection}


def find_problems(config: dict[str, Any], slots: Mapping[str, Slot], unsure: Collection[str] = ()) -> list[str]:
    """Return every mistake in `config`, each as "path: what is wrong; what is right".

    `unsure` are paths that must be known by name even where a type takes any keyword: those from the command line.
    """
    own_names = [key for key in slots if key not in RunConfig.model_fields and key != "lr_lambda"]
    own_sections = {key: config[key] for key in config if key in own_names}
    known = {key: value for key, value in config.items() if key not in own_sections}
    problems = list(_schema_problems(RunConfig, known, "", also=own_names))
    for key, value in own_sections.items():
        problems += _schema_problems(Section, value, f"{key}.")
    for path, section, slot in sections(config, slots):
        problems += _section_problems(path, section, slot, unsure)
    problems += _lr_lambda_problems(config, slots)
    problems += _monitor_problems(config)
    problems += _class_problems(config, slots)
    return problems


def sections(config: dict[str, Any], slots: Mapping[str, Slot]) -> Iterator[tuple[str, dict[str, Any], Slot]]:
    """Yield (path, section, slot) of everything that the config names a type for; a bare string is a type."""
    for key, slot in slots.items():
        value = config.get(key)
        entries = {f"{key}.{i}": entry for i, entry in enumerate(value)} if isinstance(value, list) else {key: value}
        for path, entry in entries.items():
            if isinstance(entry, str):
                yield path, {"type": entry, "args": {}}, slot
            elif isinstance(entry, dict) and isinstance(entry.get("type"), str):
                yield path, {"args": {}, **entry}, slot


def _is_function(entry: Any) -> bool:
    """Whether `entry` names a function with its arguments, and nothing else."""
    if not isinstance(entry, dict) or not entry.keys() <= {"type", "args"}:
        return False
    return isinstance(entry.get("type"), str) and isinstance(entry.get("args", {}), dict)


def _is_named(entry: Any) -> bool:
    return isinstance(entry, str) or (isinstance(entry, dict) and isinstance(entry.get("type"), str))


def metric_name(entry: str | dict[str, Any]) -> str:
    """Return what a metric of the config is called in logs."""
    return entry if isinstance(entry, str) else entry.get("name") or entry["type"]


def _section_problems(path: str, section: dict[str, Any], slot: Slot, unsure: Collection[str] = ()) -> list[str]:
    try:
        found = slot.find(section["type"], f"{path}.type")
    except ConfigError as error:
        return error.problems
    if not isinstance(section["args"], dict):
        return []  # the schema tells
    return list(slot.problems(found, section["args"], f"{path}.args", unsure))


def _lr_lambda_problems(config: dict[str, Any], slots: Mapping[str, Slot]) -> list[str]:
    section = config.get("lr_scheduler")
    args = section.get("args") if isinstance(section, dict) else None
    if not isinstance(section, dict) or not isinstance(args, dict) or "lr_lambda" not in args:
        return []
    lambdas = args["lr_lambda"] if isinstance(args["lr_lambda"], list) else [args["lr_lambda"]]
    problems: list[str] = []
    for entry in lambdas:
        path = "lr_scheduler.args.lr_lambda"
        if isinstance(entry, str):
            try:
                parse_expression(entry, str(section.get("interval", "epoch")))
            except ValueError as error:
                problems.append(f"{path}: {error}")
        elif _is_function(entry):
            problems += _section_problems(path, {"args": {}, **entry}, slots["lr_lambda"])
        else:
            problems.append(f"{path}: give an expression or a type of model/lr_lambda.py with its args, not {entry!r}")
    return problems


def _monitor_problems(config: dict[str, Any]) -> list[str]:
    trainer, metrics = config.get("trainer"), config.get("metrics", [])
    monitor = trainer.get("monitor", "off") if isinstance(trainer, dict) else "off"
    if not isinstance(monitor, str) or not isinstance(metrics, list):
        return []
    names = [metric_name(entry) for entry in metrics if _is_named(entry)]
    repeated = sorted({name for name in names if names.count(name) > 1})
    known = [prefix + name for name in ["loss", *names] for prefix in ("val_", "")]
    problems = [f'metrics: {name!r} stands twice; give one of them a "name"' for name in repeated]
    problems += ["metrics: 'loss' is the name of the loss; give the metric another"] if "loss" in names else []
    followed = monitor.partition(" ")[2]
    if followed and followed not in known:
        problems.append(f"trainer.monitor: no metric {followed!r}; {nearest(followed, known)}")
    return problems


def _class_problems(config: dict[str, Any], slots: Mapping[str, Slot]) -> Iterator[str]:
    """Yield every metric whose `num_classes` is not the data's, and a model with fewer, where the loader knows."""
    loader = config.get("data_loader")
    name = loader.get("type") if isinstance(loader, dict) else None
    known = getattr(dict(slots["data_loader"].types()).get(str(name)), "num_classes", None)
    for path, section, _ in sections(config, slots):
        given = section["args"].get("num_classes") if isinstance(section["args"], dict) else None
        if known is None or not isinstance(given, int):
            continue
        if (path.startswith("metrics.") and given != known) or (path == "arch" and given < known):
            yield f"{path}.args.num_classes: {given}, but the data of {name} has {known} classes"


def _schema_problems(
    schema: type[pydantic.BaseModel], value: Any, prefix: str, also: Iterable[str] = ()
) -> Iterator[str]:
    """Yield pydantic's findings in our words, each with its path and, for an unknown key, the nearest one.

    `also` are keys that may stand at the top although `schema` does not know them.
    """
    try:
        schema.model_validate(value)
    except pydantic.ValidationError as error:
        for item in error.errors():
            path = prefix + ".".join(str(part) for part in item["loc"])
            if item["type"] == "extra_forbidden":
                *parents, key = item["loc"]
                known = _model_at(parents).model_fields if parents else [*schema.model_fields, *also]
                yield f"{path}: unknown key; {nearest(str(key), known)}"
            elif item["type"] == "missing":
                yield f"{path}: missing"
            elif item["type"] == "string_pattern_mismatch":
                yield f"{path}: {item['input']!r:.80} is not allowed here; {_description(schema, item['loc'])}"
            else:
                yield f"{path}: {item['msg']}; got {item['input']!r:.80}"


def _model_at(loc: Sequence[int | str]) -> type[pydantic.BaseModel]:
    """Return the schema of the section at a path; places in a list do not matter."""
    return MODELS.get(".".join(part for part in loc if isinstance(part, str)), Section)


def _description(schema: type[pydantic.BaseModel], loc: tuple[int | str, ...]) -> str:
    parent = schema if len(loc) == 1 else _model_at(loc[:-1])
    return parent.model_fields[str(loc[-1])].description or ""
