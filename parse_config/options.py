"""The keys of a config, their types and their defaults; the one definition that checking and documentation share.

A key's marks say what a resume makes of another value, and which loop must follow it (see utils/annotations.py).
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from utils.annotations import HAS_STATE, MAX_COUNT, MAY_CHANGE, OF_THE_LOOP, NonNegativeInt, PositiveInt
from utils.device import DEVICE_PATTERN

NAME_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$"  # a directory name that cannot leave its parent

Patterns = Annotated[
    list[str],
    BeforeValidator(lambda given: [given] if isinstance(given, str) else given, json_schema_input_type=str | list[str]),
]
"""One pattern or several."""


class Options(BaseModel):
    """A section of plain keys: subclass it, a typed field for each key, and name it in slots.py."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Section(Options):
    """What to build: a class or function by name, and its arguments. Keys of your own are fields of a subclass."""

    type: str = Field(description="class or function, by its name in the section's own package")
    args: dict[str, Any] = Field(default={}, description="its arguments by name")


class MetricSection(Section):
    """A metric; `name` tells apart two of the same type."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")] | None = Field(
        default=None, description="what the metric is called in logs; default: its type"
    )


class OptimizerSection(Section):
    """An optimizer, and what it does otherwise with some of the weights (see docs/models.md)."""

    no_decay: bool = Field(default=False, description="no weight decay of biases, norms and other vectors")
    params: Patterns | None = Field(
        default=None, description='which weights one of several has, by patterns; default: "NAME.*", its model\'s'
    )
    layer_decay: float | None = Field(
        default=None, gt=0, le=1, description="learning rate of each layer, as a share of that of the layer after it"
    )


class SchedulerSection(Section):
    """A learning-rate scheduler and how often it steps."""

    interval: Literal["epoch", "step"] = Field(default="epoch", description="step after each epoch or optimizer step")


class CompileOptions(Options):
    """Options of torch.compile."""

    mode: Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] = Field(
        default="default", description="reduce-overhead: with CUDA graphs"
    )
    dynamic: bool | None = Field(
        default=False, description="one kernel for all shapes; false: one for each, which alone resumes exactly"
    )
    fullgraph: bool = Field(default=False, description="an error where part of the model cannot be compiled")


class StrategyOptions(Options):
    """How several processes, which torchrun starts, share a step; a single one does not look at it."""

    type: Literal["ddp", "fsdp"] = Field(
        default="ddp", description="ddp: each has the whole model, and they average gradients; fsdp: a part of it"
    )
    blocks: list[str] = Field(
        default=[], description='of FSDP: submodules to hold whole one after the other, e.g. ["layers.*"]'
    )
    checkpoint: Annotated[Literal["full", "sharded"], MAY_CHANGE] = Field(
        default="full",
        description="of FSDP: full: the first process gathers and writes all; sharded: each writes its own part",
    )
    cpu_offload: bool = Field(default=False, description="of FSDP: keep weights in the CPU's memory between their uses")
    find_unused_parameters: bool = Field(default=False, description="of DDP: some parameters get no gradient in a step")
    static_graph: bool = Field(default=False, description="of DDP: every step uses the same parameters")
    gradient_as_bucket_view: bool = Field(default=False, description="of DDP: less memory for gradients")
    sync_batchnorm: bool = Field(default=False, description="BatchNorm over the batch of all processes; GPUs alone")


class TrainerOptions(Options):
    """How to train. Keys of your own go into the subclass in trainer/options.py."""

    LOGGED: ClassVar[tuple[str, ...]] = ()
    """Names that a loop of your own returns beside loss and metrics, so that `monitor` may follow them."""

    epochs: Annotated[PositiveInt, MAY_CHANGE] = Field(description="number of epochs in all, before and after a resume")
    save_dir: Annotated[str, MAY_CHANGE] = Field(
        default="saved/", max_length=1000, pattern=r"^[^\x00]+$", description="a run lies in save_dir/name/run_id"
    )
    save_period: Annotated[PositiveInt, MAY_CHANGE] = Field(
        default=1, description="save a checkpoint every so many epochs"
    )
    save_every_steps: Annotated[PositiveInt | None, MAY_CHANGE] = Field(
        default=None, description="save latest.pth every so many steps too"
    )
    save_every_minutes: Annotated[float | None, MAY_CHANGE] = Field(
        default=None, gt=0, description="save latest.pth so often too"
    )
    keep_checkpoints: Annotated[PositiveInt | None, MAY_CHANGE] = Field(
        default=3, description="keep the checkpoints of so many epochs, the newest; null: of all"
    )
    keep_best: Annotated[PositiveInt, MAY_CHANGE] = Field(
        default=1, description="keep those of so many best epochs too, as monitor says; 1: model_best.pth alone"
    )
    verbosity: Annotated[Literal[0, 1, 2], MAY_CHANGE] = Field(
        default=2, description="log: 0 warnings, 1 info, 2 debug"
    )
    monitor: Annotated[str, HAS_STATE] = Field(
        default="off",
        pattern=r"^(off|(min|max) [\w/]+)$",
        description='"min NAME" or "max NAME": what the best checkpoint is; NAME as in the epoch log, e.g. val_loss',
    )
    early_stop: Annotated[int | None, MAY_CHANGE] = Field(
        default=None, le=MAX_COUNT, description="stop after so many epochs without a better one; 0 or less: never"
    )
    writers: Annotated[list[Literal["tensorboard", "wandb", "mlflow", "trackio"]], MAY_CHANGE] = Field(
        default=["tensorboard"], description="where curves go beside metrics.jsonl (see docs/trackers.md)"
    )
    tensorboard: Annotated[bool, MAY_CHANGE] = Field(default=True, description="false: no TensorBoard event files")
    init_weights: Annotated[Literal["all", "fitting"], MAY_CHANGE] = Field(
        default="all", description="with -c and -r, the weights to take: all must fit, or those that do"
    )
    len_epoch: Annotated[PositiveInt | None, OF_THE_LOOP] = Field(
        default=None, description="optimizer steps per epoch; default: all the data"
    )
    grad_accum_steps: Annotated[PositiveInt, OF_THE_LOOP] = Field(
        default=1, description="microbatches (of batch_size) per optimizer step"
    )
    max_grad_norm: Annotated[float | None, OF_THE_LOOP] = Field(
        default=None, gt=0, description="clip the gradient's 2-norm to this"
    )
    ema_decay: Annotated[float | None, OF_THE_LOOP, HAS_STATE] = Field(
        default=None, gt=0, lt=1, description="validate an average of the weights"
    )
    max_skipped_steps: Annotated[NonNegativeInt, OF_THE_LOOP] = Field(
        default=10, description="fp16: steps in a row that the loss scaler may skip"
    )
    precision: Annotated[Literal["fp32", "tf32", "bf16", "fp16"], OF_THE_LOOP] = Field(
        default="fp32",
        description="bf16, fp16: autocast to it; tf32: matrix products in it, where a GPU can",
    )
    channels_last: Annotated[Literal["auto"] | bool, OF_THE_LOOP] = Field(
        default="auto", description="memory layout of images and convolutions; auto: on a CPU or CUDA, if that works"
    )
    device_resident: Annotated[Literal["auto"] | bool, OF_THE_LOOP] = Field(
        default="auto",
        description="keep all data on the GPU; auto: where it takes a quarter of the free memory or less",
    )
    strategy: Annotated[StrategyOptions, OF_THE_LOOP] = Field(
        default=StrategyOptions(), description="how several processes share a step"
    )
    virtual_ranks: Annotated[PositiveInt | None, OF_THE_LOOP] = Field(
        default=None,
        description="compute each batch in so many slices, by any number of processes up to that, with the same bits",
    )
    process_timeout_s: Annotated[float, MAY_CHANGE] = Field(
        default=1800, gt=0, description="several processes: a run ends where one does not answer for so long"
    )
    compile: CompileOptions | None = Field(default=None, description="torch.compile the model: {} or its options")
    cuda_graph: Annotated[bool, OF_THE_LOOP] = Field(
        default=False, description="replay the training step as one CUDA graph; for small models"
    )
    grad_checkpointing: list[str] = Field(
        default=[], description='submodules to compute again rather than keep their activations, e.g. ["layers.*"]'
    )
    keep_memory: Annotated[bool, MAY_CHANGE] = Field(
        default=True, description="on a CPU, keep the memory that a step frees for the next one"
    )
    limit_batches: PositiveInt | None = Field(
        default=None, description="debugging: steps and validation batches an epoch"
    )
    overfit_batches: PositiveInt | None = Field(
        default=None, description="debugging: train and validate on so few batches"
    )
    profile: Annotated[bool, MAY_CHANGE, OF_THE_LOOP] = Field(
        default=False, description="debugging: torch.profiler trace of a few steps, trace.json"
    )
    deterministic: bool = Field(default=False, description="only deterministic algorithms; slower")
    detect_anomaly: Annotated[bool, MAY_CHANGE] = Field(
        default=False, description="debugging: say which operation made NaN; much slower"
    )
    log_every_steps: Annotated[PositiveInt, MAY_CHANGE, OF_THE_LOOP] = Field(
        default=50, description="log loss, gradient norm, update and speed every so many steps"
    )
    log_figures: Annotated[PositiveInt | None, MAY_CHANGE, OF_THE_LOOP] = Field(
        default=5, description="draw what validation gave in the first epoch and every so many; null: never"
    )
    log_histograms: Annotated[PositiveInt | None, MAY_CHANGE] = Field(
        default=None, description="TensorBoard histograms of weights and gradients every so many epochs"
    )

    @field_validator("writers")
    @classmethod
    def _are_installed(cls, writers: list[str]) -> list[str]:
        for name in writers:
            if name != "tensorboard" and find_spec(name) is None:
                raise ValueError(f"{name} is not installed; pip install {name}")
        return list(dict.fromkeys(writers))

    @property
    def has_tensorboard(self) -> bool:
        """Whether curves go to TensorBoard."""
        return self.tensorboard and "tensorboard" in self.writers


class FineTuneOptions(Options):
    """What to begin from, and what of it to train. Patterns are of the names of weights, as in "layer1.*"."""

    pretrained: Annotated[str | None, MAY_CHANGE] = Field(
        default=None, description="take from this file what fits: a checkpoint, safetensors or a plain state dict"
    )
    freeze: Annotated[list[str], HAS_STATE] = Field(
        default=[], description='what is not trained, e.g. ["conv1.*", "layer[12].*"]; its BatchNorm stays in eval mode'
    )
    unfreeze_at: Annotated[dict[str, list[str]], HAS_STATE] = Field(
        default={}, description='what of it is trained from an epoch on, e.g. {"5": ["layer2.*"]}'
    )

    @field_validator("unfreeze_at")
    @classmethod
    def _are_epochs(cls, unfreeze_at: dict[str, list[str]]) -> dict[str, list[str]]:
        for key in unfreeze_at:
            if not re.fullmatch("[1-9][0-9]{0,8}", key):
                raise ValueError(f'{key!r:.40} is no epoch; give some as in {{"5": ["layer2.*"]}}')
        return unfreeze_at


class RunConfig(Options):
    """The keys beside the sections; what sections there are is said in slots.py."""

    name: Annotated[str, MAY_CHANGE] = Field(
        pattern=NAME_PATTERN, description="letters, digits, '.', '_', '-', at most 64: a directory under save_dir"
    )
    tag: Annotated[str | None, MAY_CHANGE] = Field(
        default=None, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+$", description="a word to find the run by, in runs.py"
    )
    n_gpu: Annotated[NonNegativeInt, MAY_CHANGE] = Field(default=1, description="0: CPU; 1: a GPU where there is one")
    device: Annotated[str, MAY_CHANGE] = Field(
        default="auto", pattern=f"^({DEVICE_PATTERN})$", description="auto, cpu, mps, cuda or cuda:N"
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="seed of everything random")
    fine_tune: FineTuneOptions = Field(default=FineTuneOptions(), description="see docs/models.md")
