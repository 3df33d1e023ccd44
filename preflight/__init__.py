"""What is checked, tried and measured with the built objects, before a run begins."""

from preflight.batch_size import choose_batch_size
from preflight.checks import check_run
from preflight.means import warn_of_wrong_means
from preflight.processes import join_processes, share_data
from preflight.rehearsal import rehearse
from preflight.trial import check_batch
from preflight.try_out import try_out

__all__ = [
    "check_batch",
    "check_run",
    "choose_batch_size",
    "join_processes",
    "rehearse",
    "share_data",
    "try_out",
    "warn_of_wrong_means",
]
