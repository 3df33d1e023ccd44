"""Small tools that know nothing of configs, loaders or trainers."""

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
    writing_to,
)
from utils.failures import exit_on_user_error
from utils.files import ensure_dir, fsync_dir, read_json, write_atomic, write_json
from utils.inf_loop import inf_loop
from utils.metric_tracker import Metric, MetricTracker
from utils.position import Position
from utils.rng import mix_seed, rng_state, sample_uniforms, seed_everything, set_rng_state

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "Metric",
    "MetricTracker",
    "NonFiniteError",
    "OutOfMemoryError",
    "Position",
    "RunDirError",
    "Stopped",
    "UserError",
    "ensure_dir",
    "exit_on_user_error",
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
    "to_device",
    "write_atomic",
    "write_json",
    "writing_to",
]
