"""The page of a sweep: what was tried, how good each point was, which keys mattered; one file, without network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from history.page import Html, document, section
from sweeps.results import table
from sweeps.space import Parameter
from utils.errors import ConfigError, writing_to
from utils.files import write_atomic

if TYPE_CHECKING:
    from optuna import Study

REPORT_FILE = "report.html"
# Optuna's figures are drawn on white.
FIGURES = ".figure { background: #fff; border-radius: 8px; overflow-x: auto; padding: .5rem; }\n"


def write_report(directory: Path, study: Study, space: list[Parameter], metric: str) -> Path:
    """Write report.html into a sweep's directory; return its path. Raises ConfigError, RunDirError."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise ConfigError("the report needs plotly: pip install 'plotly>=6,<8'") from None
    results = Html('<pre role="group" tabindex="0" aria-label="Trials">{}</pre>').format(table(study, space, metric))
    parts = [section("Trials", results)]
    for title, figure in _figures(study, metric):
        drawn = figure.to_html(full_html=False, include_plotlyjs=False, config={"displaylogo": False})
        frame = Html('<div class="figure" role="group" tabindex="0" aria-label="{}">{}</div>').format(
            title, Html(drawn)
        )
        parts.append(section(title, frame))
    title = f"Sweep {directory.name}"
    scripts = [f"<script>{get_plotlyjs()}</script>"] if len(parts) > 1 else []
    page = document(title, *scripts, Html("<h1>{}</h1>").format(title), *parts, style=FIGURES)
    with writing_to(directory):
        write_atomic(directory / REPORT_FILE, page.encode())
    return directory / REPORT_FILE


def _figures(study: Study, metric: str) -> list[tuple[str, Any]]:
    """Return what Optuna draws of the trials, by title; without those that too few trials cannot give."""
    from optuna import visualization as plots
    from optuna.trial import TrialState

    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not done:
        return []
    drawn: dict[str, Callable[..., Any]] = {
        "Best so far": plots.plot_optimization_history,
        "All keys of each trial": plots.plot_parallel_coordinate,
        "Each key by itself": plots.plot_slice,
    }
    if len({trial.value for trial in done}) > 1:
        drawn["Which keys matter"] = plots.plot_param_importances
    return [(title, draw(study, target_name=metric)) for title, draw in drawn.items()]
