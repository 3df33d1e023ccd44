"""From a run to its model, and from the model's outputs to columns and files."""

from prediction.loading import LoadedRun, load_run
from prediction.meaning import KINDS, Kind, Meaning, kind_of
from prediction.output_file import OutputFile

__all__ = ["KINDS", "Kind", "LoadedRun", "Meaning", "OutputFile", "kind_of", "load_run"]
