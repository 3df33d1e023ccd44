"""The keys of a config, their types and their defaults; the one definition that checking and documentation share."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from utils.device import DEVICE_PATTERN

NAME_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$"  # a directory name that cannot leave its parent


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Section(_Strict):
    """What to build: a class or function by name, and its arguments."""

    type: str = Field(description="class or function, by its name in the section's own package")
    args: dict[str, Any] = Field(default={}, description="its arguments by name")


class MetricSection(Section):
    """A metric; `name` tells apart two of the same type."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")] | None = Field(
        default=None, description="what the metric is called in logs; default: its type"
    )


def _as_section(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value


Loss = Annotated[Section, BeforeValidator(_as_section, json_schema_input_type=str | Section)]
Metric = Annotated[MetricSection, BeforeValidator(_as_section, json_schema_input_type=str | MetricSection)]


class SchedulerSection(Section):
    """A learning-rate scheduler and how often it steps."""

    interval: Literal["epoch", "step"] = Field(default="epoch", description="step after each epoch or optimizer step")


class CompileSection(_Strict):
    """Options of torch.compile."""

    mode: Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] = Field(
        default="default", description="reduce-overhead: with CUDA graphs"
    )
    dynamic: bool | None = Field(
        default=False, description="one kernel for all shapes; false: one for each, which alone resumes exactly"
    )
    fullgraph: bool = Field(default=False, description="an error where part of the model cannot be compiled")


class TrainerSection(_Strict):
    """How to train."""

    epochs: int = Field(ge=1, description="number of epochs in all, before and after a resume")
    save_dir: str = Field(default="saved/", pattern=r"^[^\x00]+$", description="a run lies in save_dir/name/run_id")
    save_period: int = Field(default=1, ge=1, description="save a checkpoint every so many epochs")
    save_every_steps: int | None = Field(default=None, ge=1, description="save latest.pth every so many steps too")
    save_every_minutes: float | None = Field(default=None, gt=0, description="save latest.pth so often too")
    keep_checkpoints: int | None = Field(default=None, ge=1, description="keep so many epoch checkpoints; default: all")
    verbosity: Literal[0, 1, 2] = Field(default=2, description="log: 0 warnings, 1 info, 2 debug")
    monitor: str = Field(
        default="off",
        pattern=r"^(off|(min|max) \w+)$",
        description='"min NAME" or "max NAME": what the best checkpoint is; NAME as in the epoch log, e.g. val_loss',
    )
    early_stop: int | None = Field(
        default=None, description="stop after so many epochs without a better one; 0 or less: never"
    )
    tensorboard: bool = Field(default=True, description="write TensorBoard event files")
    len_epoch: int | None = Field(default=None, ge=1, description="optimizer steps per epoch; default: all the data")
    grad_accum_steps: int = Field(default=1, ge=1, description="microbatches (of batch_size) per optimizer step")
    max_grad_norm: float | None = Field(default=None, gt=0, description="clip the gradient's 2-norm to this")
    ema_decay: float | None = Field(default=None, gt=0, lt=1, description="validate an average of the weights")
    max_skipped_steps: int = Field(default=10, ge=0, description="fp16: steps in a row that the loss scaler may skip")
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = Field(
        default="fp32",
        description="bf16, fp16: autocast to it; tf32: matrix products in it, where a GPU can",
    )
    channels_last: Literal["auto"] | bool = Field(
        default="auto", description="memory layout of images and convolutions; auto: on a CPU or CUDA"
    )
    device_resident: Literal["auto"] | bool = Field(
        default="auto",
        description="keep all data on the GPU; auto: where it takes a quarter of the free memory or less",
    )
    compile: CompileSection | None = Field(default=None, description="torch.compile the model: {} or its options")
    cuda_graph: bool = Field(default=False, description="replay the training step as one CUDA graph; for small models")
    grad_checkpointing: list[str] = Field(
        default=[], description='submodules to compute again rather than keep their activations, e.g. ["layers.*"]'
    )
    limit_batches: int | None = Field(
        default=None, ge=1, description="debugging: steps and validation batches an epoch"
    )
    overfit_batches: int | None = Field(
        default=None, ge=1, description="debugging: train and validate on so few batches"
    )
    profile: bool = Field(default=False, description="debugging: torch.profiler trace of a few steps, trace.json")
    deterministic: bool = Field(default=False, description="only deterministic algorithms; slower")
    detect_anomaly: bool = Field(default=False, description="debugging: say which operation made NaN; much slower")
    log_every_steps: int = Field(default=50, ge=1, description="log loss and speed every so many steps")


class RunConfig(_Strict):
    """A whole config. Sections of a fork's own are those that its slots name."""

    name: str = Field(
        pattern=NAME_PATTERN, description="letters, digits, '.', '_', '-', at most 64: a directory under save_dir"
    )
    n_gpu: int = Field(default=1, ge=0, description="0: CPU; 1: a GPU where there is one")
    device: str = Field(default="auto", pattern=f"^({DEVICE_PATTERN})$", description="auto, cpu, mps, cuda or cuda:N")
    seed: int = Field(default=0, ge=0, lt=2**32, description="seed of everything random")
    arch: Section = Field(description="model: a class of model/model.py")
    data_loader: Section = Field(description="data: a class of data_loader/")
    optimizer: Section = Field(description="a class of torch.optim")
    loss: Loss = Field(description="a function of model/loss.py or a loss class of torch.nn")
    metrics: list[Metric] = Field(default=[], description="functions of model/metric.py or torchmetrics classes")
    lr_scheduler: SchedulerSection | None = Field(default=None, description="a class of torch.optim.lr_scheduler")
    trainer: TrainerSection = Field(description="how to train")


NESTED: dict[str, type[BaseModel]] = {"trainer": TrainerSection, "trainer.compile": CompileSection}
"""The sections that are no type with its arguments, by path, outer ones first."""
