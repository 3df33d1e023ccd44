"""Runs as a table, side by side and as a page: of a thousand directories, some broken, none is fatal."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import runs
from helpers import ROOT
from history.compare import sparkline
from history.find import all_runs, find_run
from history.report import report_page, write_report
from history.run import read_run
from history.text import HistoryError
from many_runs import BREAKAGES, make_run
from toy_runs import run, small_config, stopped_at, train

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="makes pipes and links")
EVIL = "<script>alert(1)</script>"


def listed(capsys: pytest.CaptureFixture[str], *args: str | Path) -> list[str]:
    """Return the ids of the runs that runs.py list --json gives."""
    assert runs.main(["list", *map(str, args), "--json"]) == 0
    return [record["run"] for record in json.loads(capsys.readouterr().out)["runs"]]


def test_a_thousand_runs_are_listed_and_the_broken_ones_named(tmp_path: Path) -> None:
    for i in range(1000):
        path = make_run(tmp_path, f"net{i % 7}", f"run{i:04}", lr=10 ** -(i % 5), losses=(0.5, 0.4 + i / 1e4))
        if i % 20 == 0:
            list(BREAKAGES.values())[i // 20 % len(BREAKAGES)](path)
    done = subprocess.run(
        [sys.executable, ROOT / "runs.py", "list", tmp_path], capture_output=True, text=True, timeout=60, check=True
    )
    assert len(done.stdout.splitlines()) == 951
    broken = done.stderr.splitlines()[2:]
    assert len(broken) == 50
    for number, reason in enumerate(BREAKAGES):
        assert sum(line.endswith(f": {reason}") for line in broken) == 5, (number, reason)


def test_list_imports_no_torch_and_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    for i in range(300):
        make_run(tmp_path, "net", f"run{i:04}", losses=(0.5,))
    code = "import runs, sys; runs.main(['list', sys.argv[1]]); assert not {'torch', 'plotly'} & {*sys.modules}"
    command = [sys.executable, "-c", code, str(tmp_path)]
    subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, timeout=60, check=True)
    piped = f"'{sys.executable}' runs.py list '{tmp_path}' --json | head -n 1"
    done = subprocess.run(["sh", "-c", piped], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("{\n", "")


def test_a_real_run_is_listed_with_what_it_was_trained_with(tmp_path: Path) -> None:
    config = small_config(tmp_path / "saved")
    with stopped_at(4):
        train(config, "--tag", "mine")
    ((found,), ()) = all_runs(tmp_path / "saved")
    assert (found.status, found.epoch, found.epochs, found.tag) == ("preempted", 1, 2, "mine")
    run("-r", str(found.path))
    found = read_run(found.path)
    log = found.epoch_log
    assert (found.status, found.epoch, found.epochs) == ("completed", 2, 2)
    assert found.best is not None
    assert (found.best.metric, found.best.mode) == tuple(config["trainer"]["monitor"].split()[::-1])
    assert found.best.value == log[found.best.epoch - 1][found.best.metric]
    assert [process["resumed"] for process in found.processes] == [None, "latest.pth"]
    assert found.started is not None
    assert found.updated is not None
    assert found.started <= found.updated
    assert "<td>mine</td>" in report_page([found])


def test_the_status_is_what_the_process_is(tmp_path: Path) -> None:
    make_run(tmp_path, "net", "dead", losses=(0.5, 0.3), status="running", epoch=1, best=None)
    make_run(tmp_path, "net", "elsewhere", status="running", host="another")
    code = "import sys, fcntl; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print(1, flush=True); input()"
    alive = make_run(tmp_path, "net", "alive", status="running")
    with subprocess.Popen(
        [sys.executable, "-c", code, alive / ".lock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = {run.run_id: run for run in all_runs(tmp_path)[0]}
        assert {name: run.status for name, run in found.items()} == {
            **{"dead": "killed", "elsewhere": "running?", "alive": "running"}
        }
        process.communicate(b"\n")
    assert read_run(alive).status == "killed"  # its lock is free, whoever has the number NOBODY
    assert found["dead"].epoch == 2  # metrics.jsonl knows more than the status of the last checkpoint
    assert found["dead"].best == ("val_loss", "min", 0.3, 2)


def test_runs_of_an_earlier_version_and_wrong_values_are_read(tmp_path: Path) -> None:
    old = make_run(tmp_path, "net", "old", losses=(0.5, 0.3, 0.4))
    position = {"epoch": 4, "step_in_epoch": 0, "global_step": 30}
    state = {"status": "completed", "position": position, "time": "2026-01-01T00:00:00+00:00"}
    (old / "status.json").write_text(json.dumps(state))
    found = read_run(old)
    assert (found.epoch, found.best) == (3, ("val_loss", "min", 0.3, 2))
    wrong: dict[str, Any] = {
        "status": 7,
        "best": "x",
        "epoch": "y",
        "started": 3,
        "updated": [],
        "pid": {},
        "seconds": "z",
    }
    odd = make_run(tmp_path, "net", "odd", **wrong)
    (odd / "config.json").write_text('{"trainer": 3, "tag": {"a": NaN}}')
    (odd / "metrics.jsonl").write_bytes(b'\xff\n{"kind": "epoch", "epoch": 1e999}\n[3]\n{"kind": "ep')
    (odd / "test.json").write_text('{"metrics": {"a": "b", "c": NaN}}')
    (odd / "environment.json").write_text('{"processes": [3, {"git": 4}]}')
    assert runs.main(["list", str(tmp_path)]) == 0
    assert runs.main(["compare", str(odd), str(old)]) == 0
    report_page([read_run(odd)])


def test_sort_and_filter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path, "net", "a", lr=0.1, losses=(0.5,), started="2026-01-01T00:00:00+00:00")
    make_run(tmp_path, "net", "b", lr=0.01, losses=(0.3, 0.2), started="2026-01-03T00:00:00+00:00")
    make_run(tmp_path, "net", "c", lr=1, started="2026-01-02T00:00:00+00:00", status="failed")
    assert listed(capsys, tmp_path) == ["b", "c", "a"]
    assert listed(capsys, tmp_path, "--sort", "best") == ["b", "a", "c"]
    assert listed(capsys, tmp_path, "--sort", "optimizer.args.lr", "--reverse") == ["c", "a", "b"]
    assert listed(capsys, tmp_path, "--filter", "status=completed", "--filter", "lr<0.1") == ["b"]
    assert listed(capsys, tmp_path, "--filter", "lr>=0.1") == ["c", "a"]
    assert listed(capsys, tmp_path, "--filter", "status!=completed") == ["c"]
    assert listed(capsys, tmp_path / "net" / "a") == ["a"]
    for args, reason in ((["--sort", "lrr"], "did you mean 'lr'"), (["--filter", "lr"], "give KEY=VALUE")):
        assert runs.main(["list", str(tmp_path), *args]) == 2
        assert reason in capsys.readouterr().err


def test_the_table_says_what_is_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(3):
        make_run(tmp_path, "net", f"usual{i}")
    make_run(tmp_path, "net", "other", lr=0.5)
    runs.main(["list", str(tmp_path)])
    lines = [line for line in capsys.readouterr().out.splitlines() if "lr=" in line]
    assert len(lines) == 1
    assert re.search(r"other .* lr=0\.5$", lines[0])


def test_a_run_is_found_by_path_id_and_name(tmp_path: Path) -> None:
    old = make_run(tmp_path, "net", "r1", started="2026-01-01T00:00:00+00:00")
    new = make_run(tmp_path, "net", "r2", started="2026-01-02T00:00:00+00:00")
    make_run(tmp_path, "other", "r1")
    make_run(tmp_path, "other", "r3")
    for text, path in ((str(old), old), ("r2", new), ("net/r1", old), ("net", new), (str(tmp_path / "net"), new)):
        assert find_run(text, tmp_path).path == path
    for text, reason in (("r1", "is the id of several runs"), ("nett", "did you mean 'net'?"), ("", "is not a run")):
        with pytest.raises(HistoryError, match=re.escape(reason)):
            find_run(text, tmp_path)


def test_a_sparkline_has_the_shape_of_the_curve() -> None:
    assert sparkline([0, 1, None, 0.5], 0, 1) == "▁█ ▅"
    assert sparkline([3, 3], 3, 3) == "▁▁"
    assert len(sparkline([float(i) for i in range(999)], 0, 998)) == 40


class Loaded(HTMLParser):
    """Collects the elements of a page, and what it would load."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]


def test_a_page_asks_for_nothing_and_shows_names_as_text(tmp_path: Path) -> None:
    path = make_run(tmp_path, f"{EVIL.replace('/', '')}", "r1", losses=(0.5, 0.4), error=EVIL)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"tag": EVIL, EVIL: EVIL, "url": "http://a.b/c.js"}))
    record = {"kind": "epoch", "epoch": 3, "global_step": 30, EVIL: 1.0, "</script><b>": 2.0}
    with open(path / "metrics.jsonl", "a") as file:
        file.write(json.dumps(record) + "\n")
    process = {"git": {"commit": EVIL, "diff": "git.diff", "untracked": [EVIL]}, "argv": [EVIL]}
    (path / "environment.json").write_text(json.dumps({"processes": [process]}))
    (path / "git.diff").write_text(EVIL)
    (path / "figures").mkdir()
    (path / "figures" / "confusion_matrix.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 40)
    (path / "figures" / "secret.png").symlink_to("/etc/passwd")
    other = make_run(tmp_path, "net", "r2", losses=(0.7,))
    for found in ([read_run(path)], [read_run(path), read_run(other)]):
        page = write_report(found, tmp_path / "page.html").read_text(encoding="utf-8")
        parser = Loaded()
        parser.feed(page)
        assert [url[:22] for url in parser.loaded] == ["data:image/png;base64,"]
        assert parser.tags.count("script") == 3  # the data, plotly.js, and the page's own
        assert "b" not in parser.tags
        assert EVIL not in page
        assert "default-src 'none'" in page
        assert '<html lang="en">' in page
        assert 'alt="confusion matrix"' in page
        data = re.search(r'id="charts">(.*?)</script>', page)
        assert data is not None
        assert {"loss", EVIL} <= {chart["title"] for chart in json.loads(data.group(1))}


def test_without_plotly_a_page_says_what_to_install(tmp_path: Path) -> None:
    path = make_run(tmp_path, "net", "r1", losses=(0.5,))
    code = "import sys; sys.modules['plotly'] = None; import runs; sys.exit(runs.main(['report', sys.argv[1]]))"
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr == "pages need plotly for their curves: pip install 'plotly>=6,<8'\n"
    assert not (path / "report.html").exists()


@pytest.mark.slow
def test_a_page_is_accessible_and_draws_its_curves(tmp_path: Path) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="no browser: pip install playwright")
    axe = pytest.importorskip("axe_playwright_python", reason="no axe-core: pip install axe-playwright-python")
    one = make_run(tmp_path, "net", "r1", losses=(0.5, 0.4))
    other = make_run(tmp_path, "net", "r2", losses=(0.7, 0.3))
    write_report([read_run(one)], tmp_path / "one.html")
    write_report([read_run(one), read_run(other)], tmp_path / "two.html")
    with sync_api.sync_playwright() as playwright:
        browser = launched(playwright)
        for name, scheme, width in (("one", "light", 390), ("one", "dark", 1280), ("two", "dark", 390)):
            view = {"width": width, "height": 900}
            page = browser.new_page(viewport=view, color_scheme=scheme)
            asked: list[str] = []
            page.on("request", lambda request, asked=asked: asked.append(request.url))
            page.on("pageerror", lambda error: pytest.fail(str(error)))
            page.goto((tmp_path / f"{name}.html").as_uri())
            page.wait_for_selector("#chart0 .scatterlayer path")
            page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
            page.evaluate((Path(axe.__file__).parent / "axe.min.js").read_text(encoding="utf-8") + ";0")
            assert page.evaluate("axe.run()")["violations"] == []
            assert page.evaluate("document.documentElement.scrollWidth") == width
            assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
        browser.close()


def launched(playwright: Any) -> Any:
    """Return the browser of playwright or of the system; skip where there is none."""
    errors = []
    for how in ({}, {"channel": "chromium"}, {"executable_path": "/usr/bin/chromium"}, {"channel": "chrome"}):
        try:
            return playwright.chromium.launch(args=["--no-sandbox"], **how)
        except Exception as error:
            errors.append(str(error).splitlines()[0])
    pytest.skip(f"no browser is installed: {errors[0]}")
