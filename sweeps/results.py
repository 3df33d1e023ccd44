"""What a sweep has found: its best config, ready for -c, and a table of the trials."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checkpoint.environment import differences
from sweeps.space import Parameter, text_of, values_of
from utils.errors import ConfigError, printable
from utils.files import write_json

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

BEST_FILE, SEED_VALUES, ERROR = "best.json", "seed_values", "error"
MAX_ROWS, MAX_CHANGES = 10, 3


def ranked_trials(study: Study) -> list[FrozenTrial]:
    """Return the trials that were trained to their end, the best first; of equal ones the first."""
    done = [trial for trial in study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]
    sign = -1 if study.direction.name == "MAXIMIZE" else 1
    return sorted(done, key=lambda trial: sign * (trial.value or 0.0))


def write_best(directory: Path, config: dict[str, Any], trial: FrozenTrial, metric: str, seeds: list[int]) -> Path:
    """Write the config of the best trial; train.py -c takes it. Return its path."""
    values = ", ".join(f"{value:.6g} (seed {seed})" for seed, value in zip(seeds, trial.user_attrs[SEED_VALUES]))
    comment = {"_sweep": f"trial {trial.number} of {directory}: {metric} {values}"}
    write_json({**comment, **config}, directory / BEST_FILE)
    return directory / BEST_FILE


def table(study: Study, space: list[Parameter], metric: str) -> str:
    """Return the best trials, how many were pruned, and each that failed with its reason."""
    trials, best = study.get_trials(deepcopy=False), ranked_trials(study)
    rows = [("TRIAL", metric.upper(), "VALUES")]
    rows += [(f"{t.number}", f"{t.value:.6g}", text_of(values_of(t, space))) for t in best[:MAX_ROWS]]
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    lines = [f"{number:>{widths[0]}}  {value:<{widths[1]}}  {text}" for number, value, text in rows]
    if len(best) > MAX_ROWS:
        lines.append(f"and {len(best) - MAX_ROWS} more")
    if pruned := [str(trial.number) for trial in trials if trial.state.name == "PRUNED"]:
        lines.append(f"{len(pruned)} pruned: {', '.join(pruned)}")
    for trial in (trial for trial in trials if trial.state.name == "FAIL"):
        lines.append(f"trial {trial.number} failed: {printable(trial.user_attrs.get(ERROR, ''), length=500)}")
        lines.append(f"    {text_of(values_of(trial, space))}")
    return "\n".join(lines)


def check_same_sweep(saved: dict[str, Any], now: Mapping[str, Any], where: Path) -> None:
    """Raise ConfigError unless config, space and seeds are those that the sweep began with."""
    changed = list(differences(saved, dict(now)).values())
    if changed:
        more = f" (and {len(changed) - MAX_CHANGES} more)" if len(changed) > MAX_CHANGES else ""
        what = f"{'; '.join(changed[:MAX_CHANGES])}{more}"
        raise ConfigError(f"{where}: started differently: {what}; give this sweep a --name of its own")
