"""What a run reports: console, log file, metrics file, TensorBoard."""

from logger.logger import close_logging, log_to_file, setup_logging
from logger.run_log import RunLog
from logger.visualization import TensorboardWriter, heatmap

__all__ = ["RunLog", "TensorboardWriter", "close_logging", "heatmap", "log_to_file", "setup_logging"]
