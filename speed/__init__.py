"""Levers that make the same training faster: process modes, memory layout, fused kernels, graphs, prefetching."""

from speed.levers import accelerate, clip_gradients, fast_kernels, input_format, is_sharded, lay_out, submodules
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
    "is_sharded",
    "lay_out",
    "prefetch",
    "set_process_modes",
    "submodules",
]
