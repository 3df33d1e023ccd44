"""The training step as one CUDA graph: a small model waits for kernels to be launched, and a graph is one launch."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from utils.errors import ConfigError
from utils.nested import map_tensors, tensors_of

Step = Callable[[Any], tuple[Tensor, ...]]
NUM_WARMUP_STEPS = 3  # what libraries set up at a first call must be there before a capture: docs, "CUDA graphs"


class StepGraph:
    """Calls a training step, and after a few calls replays what it launched.

    Warming up and the smaller last batch of an epoch are ordinary steps, so a run makes the same updates as without a
    graph. Whatever the host does in the step happens at capture alone: values that change between steps must be
    tensors, written in place. The learning rate is made one here; other options of the optimizer must stay.
    """

    def __init__(self, step: Step, optimizer: torch.optim.Optimizer) -> None:
        """`step` takes nested lists and tuples of CUDA tensors, and returns scalars."""
        self.step = step
        self.optimizer = optimizer
        self._stream = torch.cuda.Stream()
        self._graph = torch.cuda.CUDAGraph()
        self._num_calls: Counter[Any] = Counter()  # by the shapes of the batch
        self._captured: Any = None  # the shapes of the graph
        self._inputs: list[Tensor] = []
        self._outputs: tuple[Tensor, ...] = ()
        self._lrs = [torch.tensor(float(group["lr"]), device="cuda") for group in optimizer.param_groups]

    def __call__(self, batch: Any) -> tuple[Tensor, ...]:
        """Make one step. Raises ConfigError where the step does what a graph cannot hold, such as waiting."""
        for lr, group in zip(self._lrs, self.optimizer.param_groups):
            lr.fill_(group["lr"])
        tensors = list(tensors_of(batch))
        shapes = tuple((tensor.shape, tensor.dtype) for tensor in tensors)
        self._num_calls[shapes] += 1
        if self._captured is None and self._num_calls[shapes] > NUM_WARMUP_STEPS:
            self._capture(batch)
            self._captured = shapes
        if shapes != self._captured:
            return self._call(batch)
        for static, tensor in zip(self._inputs, tensors):
            static.copy_(tensor, non_blocking=True)
        self._graph.replay()
        return tuple(output.clone() for output in self._outputs)  # the next replay writes over them

    def _call(self, batch: Any) -> tuple[Tensor, ...]:
        """Make the step without a graph, on the stream that is captured, so that autograd stays on one."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream), self._tensor_lrs(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*capturable=True.*")  # used without a graph, which is meant
            outputs = self.step(batch)
        torch.cuda.current_stream().wait_stream(self._stream)
        return outputs

    def _capture(self, batch: Any) -> None:
        static = map_tensors(Tensor.clone, batch)
        self._inputs = list(tensors_of(static))
        try:
            # "thread_local": the thread that pins batches may go on meanwhile.
            with (
                self._tensor_lrs(),
                torch.cuda.graph(self._graph, stream=self._stream, capture_error_mode="thread_local"),
            ):
                self._outputs = self.step(static)
        except RuntimeError as error:
            cause = error.__context__ or error  # ending a capture that has failed raises an error of its own
            if isinstance(cause, torch.OutOfMemoryError):
                raise cause from None
            raise ConfigError(
                f"trainer.cuda_graph: the training step cannot be captured: {str(cause).splitlines()[0]}; model, loss "
                f"and metrics must not wait for the device (.item(), .cpu(), if tensor) nor change shapes"
            ) from error

    @contextmanager
    def _tensor_lrs(self) -> Iterator[None]:
        """Let the optimizer see its learning rates as tensors, in ordinary steps too: a float rounds otherwise."""
        rates = [group["lr"] for group in self.optimizer.param_groups]
        for lr, group in zip(self._lrs, self.optimizer.param_groups):
            group["lr"] = lr
        try:
            yield
        finally:
            for rate, group in zip(rates, self.optimizer.param_groups):
                group["lr"] = rate
