"""What export.py does with a trained model: writes it in a format, proves that it computes the same, describes it."""

from deploy.about import about_data, about_outputs, about_run
from deploy.calls import Call, calls_of
from deploy.card import write_card
from deploy.folder import new_folder
from deploy.formats import FORMATS, Trained, check_libraries, export_model
from deploy.parity import check_parity

__all__ = [
    "FORMATS",
    "Call",
    "Trained",
    "about_data",
    "about_outputs",
    "about_run",
    "calls_of",
    "check_libraries",
    "check_parity",
    "export_model",
    "new_folder",
    "write_card",
]
