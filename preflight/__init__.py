"""What is checked, tried and measured with the built objects, before a run begins."""

from preflight.as_if import rehearse_as_if
from preflight.batch_size import choose_batch_size
from preflight.checks import check_run
from preflight.lr_find import find_lr
from preflight.means import warn_of_wrong_means
from preflight.processes import join_processes, share_data
from preflight.rehearsal import rehearse
from preflight.trial import check_batch

__all__ = [
    "check_batch",
    "check_run",
    "choose_batch_size",
    "find_lr",
    "join_processes",
    "rehearse",
    "rehearse_as_if",
    "share_data",
    "warn_of_wrong_means",
]
