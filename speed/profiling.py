"""A trace of a few training steps, to look at in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, schedule

WAIT, WARMUP, ACTIVE = 1, 1, 5  # steps


class StepProfiler:
    """Traces steps 3 to 7 of this process into `trace.json` (chrome://tracing, ui.perfetto.dev); disabled, nothing."""

    def __init__(self, is_enabled: bool) -> None:
        """Start nothing yet."""
        self.is_enabled = is_enabled
        self._profile: profile | None = None

    def step(self, run_dir: Path, writer: Any) -> None:
        """Call after each training step; the first call starts the profiler, a later one writes the trace.

        `writer`, of TensorBoard, gets a table of the slowest operations as text.
        """
        if not self.is_enabled:
            return
        if self._profile is None:
            cuda = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
            self._profile = profile(
                activities=[ProfilerActivity.CPU, *cuda],
                schedule=schedule(wait=WAIT, warmup=WARMUP, active=ACTIVE, repeat=1),
                on_trace_ready=lambda p: p.export_chrome_trace(str(run_dir / "trace.json")),
                record_shapes=True,
            )
            self._profile.start()
        self._profile.step()
        self.is_enabled = self._profile.step_num < WAIT + WARMUP + ACTIVE + 1
        if not self.is_enabled:
            self._profile.stop()
            writer.add_text("profile", _summary(self._profile))


def _summary(traced: profile) -> str:
    table = traced.key_averages().table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=48)
    return f"`trace.json` in the run directory has every operation: open it at ui.perfetto.dev\n\n```\n{table}\n```"
