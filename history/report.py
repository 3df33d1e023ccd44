"""A page of one run or several: one HTML file that loads nothing from elsewhere."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Sequence
from html import unescape
from pathlib import Path
from typing import Any

from history.charts import MAX_POINTS, charts, legend
from history.compare import labels
from history.page import Html, document, folded, section
from history.report_tables import comparison_tables, config_table, environment_table, git_tables, summary, values_table
from history.run import Run
from history.text import HistoryError, value_text

MAX_DESCRIBED = 8
PNG = b"\x89PNG\r\n\x1a\n"
MAX_BYTES, MAX_PICTURES = 4 << 20, 50
DRAW = Path(__file__).with_name("charts.js")
# Whatever a run's files say, the browser loads nothing and sends nothing.
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"


def write_report(runs: Sequence[Run], file: str | Path) -> Path:
    """Write the page of `runs` to `file`, whole or not at all; return its path. Raises HistoryError."""
    path, page = Path(file), report_page(runs)
    temp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temp.write_text(page, encoding="utf-8", errors="backslashreplace")
        os.replace(temp, path)
    except OSError as error:
        raise HistoryError(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        temp.unlink(missing_ok=True)
    return path


def report_page(runs: Sequence[Run]) -> str:
    """Return the HTML of the page: curves, pictures, config, environment, git. Raises HistoryError without plotly."""
    names = labels(runs)
    title = value_text(f"{runs[0].name}/{runs[0].run_id}" if len(runs) == 1 else f"{len(runs)} runs")
    found = charts(runs, names)
    parts = [Html("<h1>{}</h1>").format(title), summary(runs, names), section("Curves", *_curves(runs, names, found))]
    if len(runs) == 1:
        parts += _details(runs[0])
    else:
        title_of = "{}: values, config, environment, git".format
        folds = [folded(title_of(name), Html("\n").join(_details(run, 3))) for run, name in zip(runs, names)]
        parts += [section("Compared", *comparison_tables(runs, names)), section("Each run", *folds)]
    data = json.dumps(found, allow_nan=False).replace("<", "\\u003c")  # so that no name ends the script
    scripts = [f'<script type="application/json" id="charts">{data}</script>']
    if found:
        scripts += [f"<script>{_plotly()}</script>", f"<script>\n{DRAW.read_text(encoding='utf-8')}</script>"]
    policy = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    return document(title, *parts, *scripts, head=policy)


def _curves(runs: Sequence[Run], names: Sequence[str], found: list[dict[str, Any]]) -> list[Html]:
    """Return the legend and a place for each chart, with a description for those who cannot see it."""
    if not found:
        return [Html("<p>No epoch has ended yet.</p>")]
    used = {trace["color"] for chart in found for trace in chart["traces"]}
    items = [(color, text) for color, text in legend(runs, names) if color in used]
    swatch = '<li><span style="background: var(--{})"></span>{}</li>'
    parts = [Html('<ul class="legend">{}</ul>').format(Html("").join(Html(swatch).format(*item) for item in items))]
    if len(runs) > 1:
        parts += [Html('<p class="muted">Solid: validation. Dotted: training.</p>')]
    if any(len(trace["x"]) >= MAX_POINTS // 2 for chart in found for trace in chart["traces"]):
        parts += [Html('<p class="muted">Of long curves, the lowest and highest points of each stretch.</p>')]
    figure = (
        "<figure><figcaption>{1}</figcaption>"
        '<div class="chart" id="chart{0}" role="img" aria-label="{2}"></div></figure>'
    )
    figures = Html("\n").join(
        Html(figure).format(i, value_text(chart["title"]), _description(chart)) for i, chart in enumerate(found)
    )
    return [*parts, Html('<div class="charts">\n{}\n</div>').format(figures)]


def _details(run: Run, level: int = 2) -> list[Html]:
    """Return what is known of one run beside its curves, under headings of `level`."""
    shown, git = _pictures(run), git_tables(run)
    parts = {
        "Values": [values_table(run)] if run.epoch_log else [],
        "Pictures": [shown] if shown else [],
        "Config": [config_table(run)],
        "Environment": [environment_table(run)],
        "Git": git,
    }
    return [section(title, *content, level=level) for title, content in parts.items() if content]


def _pictures(run: Run) -> Html | None:
    """Return the PNG files of the run directory and of its folder figures/; None where there is none."""
    files = [path for folder in (run.path, run.path / "figures") for path in sorted(folder.glob("*.png"))]
    found = [picture for path in files[:MAX_PICTURES] if (picture := _picture(path))]
    return Html('<div class="pictures">\n{}\n</div>').format(Html("\n").join(found)) if found else None


def _picture(path: Path) -> Html | None:
    """Return the picture with its name, which also describes it; None for a link, another format, or over 4 MiB."""
    try:
        if not path.is_file() or path.is_symlink() or os.path.getsize(path) > MAX_BYTES:
            return None
        data = path.read_bytes()
    except OSError:
        return None
    title = path.stem.replace("_", " ").replace("-", " ")
    code = base64.b64encode(data).decode()
    text = '<figure><figcaption>{0}</figcaption><img alt="{0}" src="data:image/png;base64,{1}"></figure>'
    return Html(text).format(title, code) if data.startswith(PNG) else None


def _description(chart: dict[str, Any]) -> str:
    """Return where the first curves of a chart begin and end, for those who cannot see it."""
    texts = [chart["title"]]
    for trace in chart["traces"][::-1][:MAX_DESCRIBED]:
        known = [value for value in trace["y"] if value is not None]
        texts.append(f"{unescape(trace['name'])} from {known[0]:.4g} to {known[-1]:.4g}")
    return value_text("; ".join(texts))


def _plotly() -> str:
    """Return the text of plotly.js. Raises HistoryError where plotly is not installed."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise HistoryError("pages need plotly for their curves: pip install 'plotly>=6,<8'", exit_code=1) from None
    return get_plotlyjs().replace("</script", "<\\/script")
