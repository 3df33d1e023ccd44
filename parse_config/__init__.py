"""The config: a file and the command line become a checked config, and the config becomes objects."""

from parse_config.config_parser import ConfigParser, CustomArg
from parse_config.options import MetricSection, OptimizerSection, Options, SchedulerSection, Section, TrainerOptions
from parse_config.slot import Slot

__all__ = [
    "ConfigParser",
    "CustomArg",
    "MetricSection",
    "OptimizerSection",
    "Options",
    "SchedulerSection",
    "Section",
    "Slot",
    "TrainerOptions",
]
