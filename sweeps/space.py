"""The space file of a sweep: which keys of the config vary, and over what."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from history.text import value_text
from parse_config import ConfigParser
from parse_config.config_file import read_config
from parse_config.named import Slots
from utils.errors import ConfigError, nearest

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.trial import FrozenTrial

KEYS = ("low", "high", "log", "step", "choices")
NOT_SWEPT = {
    "name": "the sweep's own directory is named by it",
    "trainer.save_dir": "the sweep's own directory lies in it",
    "trainer.monitor": "all trials are compared by it",
    "seed": "give --seeds N to train each point with N seeds",
}
MAX_TYPES = 32  # combinations of types that a value is tried with


@dataclass(frozen=True)
class Parameter:
    """One key of the config: a range of numbers, or where there are `choices` one of these."""

    path: str
    low: float = 0
    high: float = 0
    log: bool = False
    step: float | None = None
    choices: tuple[Any, ...] = ()

    def suggest(self, trial: Trial | FrozenTrial) -> Any:
        """Return the value of this key in `trial`; one that is drawn already stays."""
        if self.choices:
            texts = [_category(choice) for choice in self.choices]
            return self.choices[texts.index(trial.suggest_categorical(self.path, texts))]
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(self.path, self.low, self.high, log=self.log, step=int(self.step or 1))
        return trial.suggest_float(self.path, self.low, self.high, log=self.log, step=self.step)

    def grid(self) -> list[Any]:
        """Return all values as Optuna keeps them. Raises ConfigError for a range without a step."""
        if self.choices:
            return [_category(choice) for choice in self.choices]
        is_int = isinstance(self.low, int) and isinstance(self.high, int)
        if self.log or (self.step is None and not is_int):
            raise ConfigError(f"{self.path}: a grid needs a list of values, or low, high and step")
        step = self.step or 1
        return [self.low + i * step for i in range(int((self.high - self.low) / step + 1e-9) + 1)]


def _category(choice: Any) -> Any:
    """Return a choice as Optuna keeps it: a list or an object as its JSON text."""
    return json.dumps(choice) if isinstance(choice, list | dict) else choice


def read_space(path: Path) -> list[Parameter]:
    """Return the parameters that a space file (JSON or YAML) names. Raises ConfigError with all mistakes."""
    space, problems = [], []
    for key, given in read_config(path).items():
        if key.startswith("_"):  # a comment
            continue
        try:
            space.append(_parameter(key.replace(";", "."), given))
        except ConfigError as error:
            problems += [f"{path}: {key}: {problem}" for problem in error.problems]
    if not space and not problems:
        problems = [f'{path}: names no key; write such as {{"optimizer.args.lr": {{"low": 1e-4, "high": 0.1}}}}']
    if problems:
        raise ConfigError(problems)
    return space


def _parameter(path: str, given: Any) -> Parameter:
    if path in NOT_SWEPT:
        raise ConfigError(f"cannot be swept: {NOT_SWEPT[path]}")
    if isinstance(given, list):
        given = {"choices": given}
    if not isinstance(given, dict):
        raise ConfigError(f"give a list of values, or an object of low and high, or of choices; got {given!r:.80}")
    if unknown := [key for key in given if key not in KEYS]:
        raise ConfigError(f"{key}: unknown key; {nearest(key, KEYS)}" for key in unknown)
    if "choices" in given:
        return Parameter(path, choices=_choices(given))
    return _range(path, given)


def _choices(given: dict[str, Any]) -> tuple[Any, ...]:
    choices = given["choices"]
    if len(given) > 1:
        raise ConfigError("give either choices or a range")
    if not isinstance(choices, list) or not choices:
        raise ConfigError(f"choices: give a list of at least one value; got {choices!r:.80}")
    texts = [json.dumps(choice) for choice in choices]
    if twice := [text for i, text in enumerate(texts) if text in texts[:i]]:
        raise ConfigError(f"choices: {twice[0]:.80} appears twice")
    return tuple(choices)


def _range(path: str, given: dict[str, Any]) -> Parameter:
    numbers = {key: given[key] for key in ("low", "high", "step") if given.get(key) is not None}
    log = given.get("log", False)
    if missing := [key for key in ("low", "high") if key not in numbers]:
        raise ConfigError(f"{key}: missing" for key in missing)
    wrong = [key for key, value in numbers.items() if isinstance(value, bool) or not isinstance(value, int | float)]
    if wrong:
        raise ConfigError(f"{key}: give a number; got {numbers[key]!r:.80}" for key in wrong)
    if not isinstance(log, bool):
        raise ConfigError(f"log: give true or false; got {log!r:.80}")
    low, high, step = numbers["low"], numbers["high"], numbers.get("step")
    if low > high:
        raise ConfigError(f"low {low} is above high {high}")
    if log and low <= 0:
        raise ConfigError(f"low: {low} has no logarithm; give one above 0, or log: false")
    if step is not None and (log or step <= 0):
        raise ConfigError("step: not with log: true" if log else f"step: give one above 0; got {step}")
    if isinstance(low, int) and isinstance(high, int) and isinstance(step, float):
        low, high = float(low), float(high)
    return Parameter(path, low, high, log, step)


def check_space(space: list[Parameter], config: Mapping[str, Any], slots: Slots, where: Path) -> None:
    """Check every end of a range and every choice as train.py checks a config. Raises ConfigError with all mistakes.

    A value counts as right where it is right with some of the types that the space names.
    """
    types = [[(p.path, choice) for choice in p.choices] for p in space if p.path.endswith(".type") and p.choices]
    problems: list[str] = []
    for parameter in space:
        for value in parameter.choices or (parameter.low, parameter.high):
            found = _problems(config, slots, {parameter.path: value})
            others = islice(product(*types), MAX_TYPES) if types and found else ()
            if found and all(_problems(config, slots, {**dict(other), parameter.path: value}) for other in others):
                problems += [f"{where}: {problem}" for problem in found]
    if problems:
        raise ConfigError(dict.fromkeys(problems))


def _problems(config: Mapping[str, Any], slots: Slots, values: dict[str, Any]) -> list[str]:
    try:
        ConfigParser(deepcopy(dict(config)), modification=values, slots=slots)
    except ConfigError as error:
        return error.problems
    return []


def values_of(trial: Trial | FrozenTrial, space: Sequence[Parameter]) -> dict[str, Any]:
    """Return the values that were drawn for a trial, by the paths of their keys."""
    return {parameter.path: parameter.suggest(trial) for parameter in space if parameter.path in trial.params}


def text_of(values: Mapping[str, Any]) -> str:
    """Return values by path as one writes them after --set."""
    return ", ".join(f"{path}={value_text(value)}" for path, value in values.items())
