"""What a person sees of a run: bars and a table on a terminal, plain lines elsewhere, and nothing broken between."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from logger import Display, epoch_line, epoch_row, setup_logging
from utils.signals import StopSignals

if sys.platform == "win32":
    pytest.skip("has no pseudo-terminals", allow_module_level=True)

import fcntl
import pty
import struct
import termios

import pyte

MANY = {"loss": 0.5, **{f"metric_{i}": i / 7 for i in range(20)}, "perf/samples_per_sec": 12345.6, "lr/group0": 0.001}
MANY |= {"val_loss": 1e-4, **{f"val_metric_{i}": i / 7 for i in range(20)}}


def show_a_run(pause_s: float = 0.0) -> None:
    """Show what a run of three epochs shows."""
    setup_logging()
    display, log = Display(), logging.getLogger("run")
    with display.run(3, 0, True):
        for epoch in (1, 2, 3):
            with display.epoch(epoch, 4, 0) as progress:
                for step in range(4):
                    time.sleep(pause_s)
                    progress.step(10)
                    progress.show({"loss": 0.5, "perf/samples_per_sec": 1234.5})
                    if (epoch, step) == (2, 1):
                        log.warning("in the middle")
            list(display.follow(range(3), "validation", 3))
            log.info(f"epoch {epoch}/3  loss 0.5", extra={"row": ("epoch   loss", f"  {epoch}/3    0.5", epoch == 2)})
            display.end_epoch(epoch, "best loss 0.5 in epoch 1")
    log.info("the end")


def on_terminal(call: Callable[[], None], columns: int = 80, **env: str) -> bytes:
    """Return what `call` writes to a terminal of so many columns, in a process of its own."""
    pid, terminal = pty.fork()
    if pid == 0:
        try:
            fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
            for name in ("NO_COLOR", "COLUMNS"):
                os.environ.pop(name, None)
            os.environ.update({"TERM": "xterm"} | env)
            sys.stdout = open(1, "w", encoding="utf-8", buffering=1, closefd=False)  # noqa: SIM115
            call()
            sys.stdout.flush()
            os._exit(0)
        finally:
            os._exit(1)
    written = b""
    with suppress(OSError):  # how Linux says that the other end is closed
        while block := os.read(terminal, 1 << 16):
            written += block
    os.close(terminal)
    assert os.waitpid(pid, 0)[1] == 0, written.decode()
    return written


def screen(written: bytes, columns: int = 80) -> list[str]:
    """Return the lines that a terminal shows after `written`."""
    shown = pyte.Screen(columns, 40)
    pyte.ByteStream(shown).feed(written)
    return [line.rstrip() for line in shown.display if line.strip()]


def test_a_terminal_shows_bars_while_it_runs_and_a_whole_table_afterwards() -> None:
    written = on_terminal(partial(show_a_run, 0.25))  # longer than bars wait before they are drawn again
    assert screen(written) == [
        *("epoch   loss", "  1/3    0.5", "WARNING: in the middle"),
        *("epoch   loss", "  2/3    0.5  best", "  3/3    0.5", "the end"),
    ]
    *table, run, epoch = screen(written[: written.rindex(b"epoch 3 ") + 70])
    assert table[-1] == "  2/3    0.5  best"
    assert run.startswith("run 100%|")
    assert run.endswith("best loss 0.5 in epoch 1")
    assert epoch.startswith("epoch 3 100%|")
    assert "4/4 00:01<00:00, loss 0.5, samples/s 1,234" in written.decode()
    assert "validation" in written.decode()


def test_colour_is_for_terminals_that_want_it() -> None:
    assert b"\x1b[32m" in on_terminal(show_a_run)
    quiet = on_terminal(show_a_run, NO_COLOR="1")
    assert b"validation" in quiet
    assert b"\x1b[" not in quiet.replace(b"\x1b[A", b"")  # the cursor goes up
    plain = on_terminal(show_a_run, TERM="dumb")
    assert b"\x1b" not in plain
    assert b"epoch 2/3  loss 0.5\r\n" in plain


def test_a_file_gets_a_line_per_epoch_and_no_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", stream := io.StringIO())
    show_a_run()
    assert stream.getvalue().splitlines() == [
        *("epoch 1/3  loss 0.5", "WARNING: in the middle", "epoch 2/3  loss 0.5", "epoch 3/3  loss 0.5", "the end"),
    ]


@pytest.mark.parametrize("columns", [60, 80, 200, 2000])
def test_the_table_fits_the_terminal_and_lines_up(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    other = {name: value * 1e-3 for name, value in MANY.items()}
    header, row = epoch_row(" 9/10", MANY, "max val_metric_7")
    same_header, other_row = epoch_row("10/10", other, "max val_metric_7")
    assert header == same_header
    assert len(f"{header}") <= columns
    assert len(row) == len(other_row) <= columns - len("  best")
    assert header.split()[:2] == ["epoch", "loss"]
    hidden = len(MANY) + 1 - len(header.partition("  (+")[0].split())
    assert header.endswith(f"  (+{hidden} in metrics.jsonl)" if hidden else "val_metric_19")


def test_a_line_says_what_matters_most_in_the_order_of_the_log() -> None:
    line = epoch_line("epoch 1/6", MANY, "val_metric_7", is_best=True)
    assert line.startswith("epoch 1/6  loss 0.5  val_loss 0.0001  val_metric_0 0  ")
    assert "val_metric_7 1  (+" in line
    assert line.endswith(" in metrics.jsonl)  (best)")
    assert len(line) <= 120
    assert epoch_line("epoch 1/6", {"loss": 0.5}, "loss", is_best=False) == "epoch 1/6  loss 0.5"
    assert epoch_line("epoch 1/6", {}, "loss", is_best=False).rstrip() == "epoch 1/6"


def test_samples_and_seconds_are_counted_where_nothing_is_shown() -> None:
    display = Display()
    with display.epoch(1, 4, 2) as progress:
        progress.step(5)
        assert progress.lap()[0] == 5
        progress.step(7)
        progress.step(1)
        assert progress.lap()[0] == 8
        assert progress.whole()[0] == 13
    assert list(display.follow("abc", "validation", 3)) == ["a", "b", "c"]


class Kernel:
    """What IPython says of itself in a notebook."""

    kernel: Any = "a kernel"

    @classmethod
    def get_ipython(cls) -> type[Kernel]:
        return cls


def test_a_second_interrupt_ends_the_cell_of_a_notebook_and_not_its_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "IPython", Kernel)
    with StopSignals() as signals:
        signal.raise_signal(signal.SIGINT)
        assert signals.received is signal.SIGINT
        signals._received_s -= 5
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
