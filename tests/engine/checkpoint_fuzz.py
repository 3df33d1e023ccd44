"""Mutated checkpoints, and what a run makes of them; for test_checkpoint_fuzz.py, which runs them apart."""

from __future__ import annotations

import gc
import io
import json
import math
import random
import resource
import signal
import struct
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import toy
import toy_runs
from checkpoint.file import SEAL_BYTES, _seal
from utils import CheckpointError, NonFiniteError

MAX_SECONDS = 10
NOT_COMPARED = ("train_metrics", "valid_metrics")  # reset where an epoch has ended

MIXED = {"metrics": ["accuracy", {"type": "CalibrationError", "args": {"task": "multiclass", "num_classes": 3}}]}
RUNS: dict[str, dict[str, Any]] = {
    "fused Adam, an expression": {},
    "Adam with amsgrad, a lr that is an integer, OneCycle": {
        "optimizer": {"type": "Adam", "args": {"lr": 1, "amsgrad": True}},
        "lr_scheduler": {"type": "OneCycleLR", "interval": "step", "args": {"max_lr": 0.01, "total_steps": 18}},
    },
    "fused SGD, warm restarts": {
        "optimizer": {"type": "SGD", "args": {"lr": 0.1, "momentum": 0.9}},
        "lr_scheduler": {"type": "CosineAnnealingWarmRestarts", "args": {"T_0": 1, "T_mult": 2}},
    },
    "Adagrad, milestones, states that are lists": {
        "optimizer": {"type": "Adagrad", "args": {"lr": 0.1}},
        "lr_scheduler": {"type": "MultiStepLR", "args": {"milestones": [1, 2]}},
        **MIXED,
    },
    "Adafactor, plateau": {
        "optimizer": {"type": "Adafactor", "args": {"lr": 0.01}},
        "lr_scheduler": {"type": "ReduceLROnPlateau", "args": {"patience": 0}},
    },
    "NAdam, cyclic, a wide model": {
        "optimizer": {"type": "NAdam", "args": {"lr": 0.01}},
        "lr_scheduler": {
            "type": "CyclicLR",
            "interval": "step",
            "args": {"base_lr": 0.01, "max_lr": 0.1, "cycle_momentum": False},
        },
        "arch": {"type": "ToyNet", "args": {"width": 50_000}},
    },
}


def make_run(directory: Path, changes: dict[str, Any]) -> Path:
    """Stop a run of 3 epochs in the middle of its second; return its newest checkpoint."""
    config = toy_runs.small_config(directory, trainer__epochs=3, trainer__tensorboard=False)
    with toy_runs.stopped_at(8):
        toy_runs.train(config | changes)
    return toy_runs.the_run(config) / "latest.pth"


# Mutations of a state.


def containers(value: Any) -> Iterator[Any]:
    """Yield the non-empty dicts and lists in `value`, itself included."""
    if isinstance(value, dict | list | tuple) and value:
        yield value
        for item in value.values() if isinstance(value, dict) else value:
            yield from containers(item)


def odd_tensor(tensor: Tensor, generator: random.Random) -> Tensor:
    """Return a tensor that is in one way not as `tensor`; of some of them a file can hold."""
    flat, shape = tensor.detach().clone(), list(tensor.shape)
    other = torch.float64 if tensor.dtype != torch.float64 else torch.float32
    makers: list[Callable[[], Tensor]] = [
        lambda: flat.flatten()[:1].expand(max(1, flat.numel())).reshape(shape) if flat.numel() else flat,
        lambda: torch.zeros(1, dtype=flat.dtype).expand(shape or [5]),
        lambda: torch.zeros(1, dtype=flat.dtype).expand(2**30),
        lambda: torch.zeros(1, 1, dtype=flat.dtype).expand(2**20, 2**20),
        lambda: flat.t().contiguous().t() if flat.ndim == 2 else flat.unsqueeze(0),
        lambda: flat.new_zeros([*shape[:-1], 2 * (shape or [1])[-1]])[..., ::2].reshape(shape or [1]),
        lambda: torch.as_strided(flat.new_zeros(max(flat.numel(), 1)), shape, [1] * len(shape)),
        lambda: flat.new_zeros([*shape, 2])[..., 0],
        lambda: flat.to(other),
        lambda: flat.to(torch.complex64),
        lambda: flat.to(torch.complex64).conj(),
        lambda: flat.to(torch.int8),
        lambda: flat.to(torch.bfloat16),
        lambda: flat.new_zeros([size + 1 for size in shape] or [1]),
        lambda: flat.new_zeros([0]),
        lambda: flat.new_zeros([1] * len(shape)),
        lambda: flat.new_zeros([]),
        lambda: torch.full_like(flat, math.nan) if flat.is_floating_point() else flat + 1,
        lambda: torch.full_like(flat, math.inf) if flat.is_floating_point() else -flat,
        lambda: -flat - 1 if flat.dtype != torch.bool else ~flat,
        lambda: flat.to_sparse(),
        lambda: flat.double().requires_grad_(),
        lambda: torch.empty(shape, dtype=flat.dtype, device="meta"),
    ]
    return generator.choice(makers)()


def odd_value(value: Any, generator: random.Random) -> Any:
    """Return something that may stand where `value` stood."""
    if isinstance(value, Tensor):
        return odd_tensor(value, generator)
    numbers = [math.nan, math.inf, -math.inf, -1, 0, 1, 2**31, 2**63, 10**400, 1e39, -1e-3, 1.5, 1e308, 2**62, 0.999]
    others = [True, None, "x", "\x1b[2J", "x" * 10_000, [], {}, {"a": 1}, [1, 2], (0.5, 0.5), set(), deep(500), b"x"]
    others += [torch.zeros(2), torch.zeros(()), torch.zeros(1).expand(2**30), {1: 1}, deep(20)]
    if isinstance(value, int | float) and generator.random() < 0.7:
        return generator.choice([*numbers, value * 2, value + 1])
    return generator.choice([*numbers, *others])


def deep(depth: int) -> Any:
    """Return a list in a list in a list."""
    result: Any = 1
    for _ in range(depth):
        result = [result]
    return result


def mutate(state: dict[str, Any], generator: random.Random) -> str:
    """Change one thing in `state`, in place; return what."""
    top = generator.choice(list(state))
    if generator.random() < 0.05:
        del state[top]
        return f"without {top}"
    if not isinstance(state[top], dict | list | tuple) or not state[top]:
        state[top] = odd_value(state[top], generator)
        return f"{top}: {state[top]!r:.100}"
    places = [place for place in containers(state[top]) if not isinstance(place, tuple)]
    place = generator.choice(places[:200])
    if generator.random() < 0.1:
        place = state
    keys = list(place) if isinstance(place, dict) else list(range(len(place)))
    key = generator.choice(keys)
    kind = generator.choice(["value"] * 8 + ["drop", "add", "swap", "rename"])
    key = top if place is state else key
    before = f"{top} … {key!r:.40}: {place[key]!r:.60}"
    if kind == "value":
        value = place[key]
        if isinstance(value, tuple) and value and generator.random() < 0.7:
            items = list(value)
            index = generator.randrange(len(items))
            items[index] = odd_value(items[index], generator)
            place[key] = tuple(items)
        else:
            place[key] = odd_value(value, generator)
        return f"{before} -> {place[key]!r:.60}"
    if kind == "drop":
        del place[key]
    elif kind == "add":
        place.update({"more": odd_value(1, generator)}) if isinstance(place, dict) else place.append(place[key])
    elif kind == "swap":
        other = generator.choice([other for other in keys if other != key] or keys)
        place[key], place[other] = place[other], place[key]
    elif isinstance(place, dict):
        place["\x1b]0;owned\x07\n"] = place.pop(key)
    return f"{kind}: {before}"


def as_bytes(state: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def mutated_bytes(data: bytes, generator: random.Random) -> bytes:
    """Return the zip of a checkpoint with some bytes of one entry, most often the pickle, changed."""
    entries = zipfile.ZipFile(io.BytesIO(data))
    names = entries.namelist()
    chosen = next(name for name in names if name.endswith("data.pkl"))
    if generator.random() < 0.2:
        chosen = generator.choice(names)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            content = bytearray(entries.read(name))
            for _ in range(generator.randint(1, 3) if name == chosen and content else 0):
                content[generator.randrange(len(content))] = generator.randrange(256)
            archive.writestr(name, bytes(content))
    return buffer.getvalue()


def sealed_again(body: bytes, sealed: bytes) -> bytes:
    """Return the zip `body` with a right checksum and the position of `sealed`."""
    if body[-22:-18] + body[-2:] != b"PK\x05\x06\0\0":
        return body
    epoch, step = (int(part.split(b"=")[1]) for part in sealed[-SEAL_BYTES:].split()[1:])
    return _seal(body, epoch, step)


# What a run makes of them.


class Subject:
    """A trainer that was built once, and loads one checkpoint after another."""

    def __init__(self, checkpoint: Path, directory: Path) -> None:
        self.path = directory / "latest.pth"
        self.intact = checkpoint.read_bytes()
        for name in ("config.json", "metrics.jsonl"):
            (directory / name).write_bytes((checkpoint.parent / name).read_bytes())
        self.path.write_bytes(self.intact)
        trainer = toy.build_trainer(toy.parse_args(["-r", str(self.path)]))
        assert isinstance(trainer, toy.ToyTrainer)
        self.trainer = trainer
        trainer.loop.attach()
        trainer._preflight()
        trainer.environment = trainer._environment()

    def load(self, data: bytes) -> str:
        """Load the checkpoint `data` and train one epoch on; return "loaded", or the line that refuses it.

        Raises AssertionError where what was loaded is not what the file says, or makes no sense.
        """
        self.path.write_bytes(data)
        try:
            with alarm():
                self.trainer._resume(self.path)
        except CheckpointError as error:
            refusal = str(error)
        else:
            with alarm():
                self._check_parts(torch.load(io.BytesIO(data), map_location="cpu", weights_only=True))
                return self._train()
        lines = refusal.splitlines()
        assert lines[0].startswith(str(self.path)), refusal
        assert len(lines) == 1 or lines[0].endswith("cannot resume exactly:"), refusal
        assert len(refusal) < 10_000
        return refusal

    def _check_parts(self, plain: dict[str, Any]) -> None:
        trainer = self.trainer
        has_ended = plain["position"]["step_in_epoch"] == 0
        for name, part in trainer._stateful().items():
            if not (has_ended and name in NOT_COMPARED):
                assert is_same(part.state_dict(), plain[name]), name
        for group in trainer.optimizer.param_groups:
            assert 0 <= group["lr"] < 1e38
            assert all(0 <= beta < 1 for beta in group.get("betas", ()))
            assert 0 <= group.get("momentum", 0) < 1e38
            assert 0 <= group["weight_decay"] < 1e38
        for parameter, values in trainer.optimizer.state.items():
            for name, value in values.items():
                assert name != "step" or 0 <= value < math.inf
                assert value.ndim == 0 or value.ndim == parameter.ndim
                assert value.shape != parameter.shape or value.stride() == parameter.stride()
        assert not math.isnan(trainer.monitor.best)
        assert 0 <= trainer.position.step_in_epoch < 2**62
        assert all(isinstance(value, float) for value in trainer.last_log.values())

    def _train(self) -> str:
        """Train to the end of the epoch; return "loaded"."""
        trainer = self.trainer
        if trainer.position.epoch > trainer.epochs:
            return "loaded"
        try:
            trainer._train_epoch(trainer.position.epoch)
        except NonFiniteError:
            return "loaded"
        except CheckpointError as error:  # at a step that the epoch does not have
            return str(error)
        except TypeError:
            # torch's fused SGD cannot begin with one parameter later than with the others, in no run.
            if "_fused_sgd" not in traceback.format_exc():
                raise
        return "loaded"


def is_same(one: Any, other: Any) -> bool:
    """Whether two states hold the same values; NaN is NaN."""
    if isinstance(one, Tensor):
        if not isinstance(other, Tensor) or one.shape != other.shape:
            return False
        if {one.dtype, other.dtype} == {torch.float32, torch.float64}:  # a metric's mean is kept in float64
            one, other = one.double(), other.double()
        return one.dtype == other.dtype and torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)
    if isinstance(one, dict):
        return one.keys() <= other.keys() and all(is_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(is_same, one, other))
    return one == other or (one != one and other != other)


@contextmanager
def alarm() -> Iterator[None]:
    """Raise TimeoutError in what takes longer than a checkpoint may."""

    def ring(*args: object) -> None:
        raise TimeoutError

    previous = signal.signal(signal.SIGALRM, ring)
    signal.alarm(MAX_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def run_cases(checkpoint: Path, directory: Path, seed: int, num_cases: int) -> None:
    """Try that many mutations; write a line of JSON for each, and for the intact file before, to `directory`/report."""
    torch.set_num_threads(1)
    start = peak_kib()
    subject = Subject(checkpoint, directory)
    with open(directory / "report", "w", encoding="utf-8", buffering=1) as report:

        def tell(**values: Any) -> None:
            report.write(json.dumps(values) + "\n")

        intact = torch.load(io.BytesIO(subject.intact), weights_only=True)
        for _ in range(2):
            result = subject.load(sealed_again(as_bytes(deepcopy(intact)), subject.intact))
            assert result == "loaded", result
        tell(what="intact", result="loaded", growth=peak_kib() - start)
        gc.collect()
        gc.freeze()
        for number in range(num_cases):
            generator = random.Random(f"{seed} {number}")
            is_bytes = number % 5 == 4
            tell(number=number, began=time.time())
            try:
                if is_bytes:
                    what, body = "bytes", mutated_bytes(as_bytes(intact), generator)
                else:
                    state = deepcopy(intact)
                    what = mutate(state, generator)
                    tell(what=what)
                    body = as_bytes(state)
            except (RuntimeError, RecursionError, NotImplementedError, struct.error) as error:  # no file can be so
                tell(number=number, what="unsaved", result=f"not saved: {error}"[:200])
                continue
            try:
                result = subject.load(sealed_again(body, subject.intact))
            except BaseException:
                result = f"FAILED: {traceback.format_exc()}"
            tell(number=number, what=what, result=result, growth=peak_kib() - start)
            gc.collect()  # errors and their frames go round in circles
