"""What a run reports: console, log file, metrics file, TensorBoard."""

from logger.display import Display, EpochProgress, follow
from logger.epoch_table import epoch_line, epoch_row, named
from logger.logger import close_logging, log_to_file, setup_logging
from logger.run_log import RunLog
from logger.visualization import TensorboardWriter, heatmap

__all__ = [
    "Display",
    "EpochProgress",
    "RunLog",
    "TensorboardWriter",
    "close_logging",
    "epoch_line",
    "epoch_row",
    "follow",
    "heatmap",
    "log_to_file",
    "named",
    "setup_logging",
]
