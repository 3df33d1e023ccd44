"""The engine's tools. Nothing here knows of models, loaders or trainers."""

from utils.device import prepare_device, to_device
from utils.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    NonFiniteError,
    OutOfMemoryError,
    RunDirError,
    Stopped,
    UserError,
    nearest,
    told_to_user,
    writing_to,
)
from utils.files import ensure_dir, fsync_dir, read_json, write_atomic, write_json
from utils.metric_tracker import Metric, MetricTracker
from utils.monitor import Monitor
from utils.position import Position
from utils.rng import mix_seed, rng_state, sample_uniforms, seed_everything, set_rng_state
from utils.sampling import EpochBatchSampler, epoch_steps, inf_loop, split_indices

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "EpochBatchSampler",
    "Metric",
    "MetricTracker",
    "Monitor",
    "NonFiniteError",
    "OutOfMemoryError",
    "Position",
    "RunDirError",
    "Stopped",
    "UserError",
    "ensure_dir",
    "epoch_steps",
    "fsync_dir",
    "inf_loop",
    "mix_seed",
    "nearest",
    "prepare_device",
    "read_json",
    "rng_state",
    "sample_uniforms",
    "seed_everything",
    "set_rng_state",
    "split_indices",
    "to_device",
    "told_to_user",
    "write_atomic",
    "write_json",
    "writing_to",
]
