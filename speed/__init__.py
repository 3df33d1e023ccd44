"""Levers that make the same training faster: modes of the process, memory layout, fused kernels, graphs, prefetching."""

from speed.levers import accelerate, clip_gradients, fast_kernels, input_format
from speed.modes import set_process_modes
from speed.prefetch import prefetch
from speed.profiling import StepProfiler
from speed.step_graph import StepGraph

__all__ = [
    "StepGraph",
    "StepProfiler",
    "accelerate",
    "clip_gradients",
    "fast_kernels",
    "input_format",
    "prefetch",
    "set_process_modes",
]
