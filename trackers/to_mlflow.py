"""Sends to MLflow, by MLFLOW_TRACKING_URI or into `mlflow.db` of the working directory."""

from __future__ import annotations

import os
import time

from history.differences import flatten
from trackers.lines import Line
from trackers.mirror import RunInfo

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
TAG = "run"  # holds the run's number
MAX_METRICS, MAX_PARAMS, MAX_VALUE = 1000, 100, 6000  # of one request, as MLflow's REST API allows
LINE = "line"  # a metric that says which lines are there


class Mirror:
    """One run of MLflow. A batch is one transaction there, so a line is there whole or not at all."""

    is_live = True

    def __init__(self, run: RunInfo) -> None:
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient()
        found = self._client.get_experiment_by_name(run.project)
        experiment = found.experiment_id if found else self._client.create_experiment(run.project)
        runs = self._client.search_runs([experiment], f"tags.{TAG} = '{run.key}'")
        if runs:
            self._id = runs[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
        else:
            self._id = self._client.create_run(experiment, run_name=run.name, tags={TAG: run.key}).info.run_id
        self._log_config(run)

    def num_held(self, num_marked: int) -> int:
        """Return how many lines are there, as MLflow itself says."""
        return max((int(held.value) + 1 for held in self._client.get_metric_history(self._id, LINE)), default=0)

    def send(self, lines: list[Line]) -> None:
        """Send whole lines, as many in a batch as one may have."""
        from mlflow.entities import Metric

        batch: list[Metric] = []
        for line in lines:
            values = line.values | {LINE: float(line.number)}
            if len(batch) + len(values) > MAX_METRICS:
                self._client.log_batch(self._id, metrics=batch)
                batch = []
            now = int(1000 * time.time())
            batch += [Metric(name, value, now, line.global_step) for name, value in values.items()]
        self._client.log_batch(self._id, metrics=batch)

    def finish(self, has_ended: bool) -> None:
        """Close the run."""
        self._client.set_terminated(self._id, "FINISHED" if has_ended else "KILLED")

    def _log_config(self, run: RunInfo) -> None:
        """Log the config as parameters. MLflow lets none change: after a resume the first values stay."""
        from mlflow.entities import Param

        known = self._client.get_run(self._id).data.params
        values = {key: value for key, value in flatten(run.config).items() if key not in known and value != {}}
        params = [Param(key, str(value)[:MAX_VALUE]) for key, value in values.items()]
        for start in range(0, len(params), MAX_PARAMS):
            self._client.log_batch(self._id, params=params[start : start + MAX_PARAMS])
