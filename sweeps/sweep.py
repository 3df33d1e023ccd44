"""One process's part in a sweep: it trains trial after trial until all have a result."""

from __future__ import annotations

import argparse
import json
import time
from copy import deepcopy
from pathlib import Path
from statistics import fmean
from typing import Any

from parse_config import ConfigParser
from sweeps.results import ERROR, SEED_VALUES, check_same_sweep, ranked_trials, table, write_best
from sweeps.space import check_space, read_space, text_of, values_of
from sweeps.study import FILES, Points, Trials, import_optuna, make_pruner, open_study, sweep_lock
from sweeps.trial import Plan, TrialFailed, TrialPruned, run_trial
from utils.errors import ConfigError, writing_to
from utils.files import read_json, write_json

SWEEP_FILE = "sweep.json"
POLL_S = 1.0  # for a trial that another process has left


class Sweep:
    """A sweep that this process takes part in."""

    def __init__(self, script: Path, config: ConfigParser, cli: argparse.Namespace, **how: Any) -> None:
        """Check everything, and open the sweep's directory. Raises ConfigError, RunDirError.

        `script` is train.py; `cli` has what the command line of sweep.py says.
        """
        import_optuna()
        where = Path(cli.space)
        space = read_space(where)
        self.spec = config["trainer"]["monitor"]
        if self.spec == "off":
            raise ConfigError('trainer.monitor: is off; a sweep needs "min NAME" or "max NAME", such as "min val_loss"')
        check_space(space, config.config, config.slots, where)
        points = Points(space, cli.sampler, config["seed"], cli.num_trials or (1 if cli.report else None))
        self.given = config.config  # as best.json has it
        name = f"{config['name']}-{cli.sweep_name or where.stem}"
        own = ConfigParser(deepcopy(self.given), modification={"name": name}, slots=config.slots)
        seeds = [config["seed"] + i for i in range(cli.seeds)]
        self.plan = Plan(script, own.save_dir.parent, own.config, space, seeds, config.slots, **how)
        self.directory = self.plan.directory
        if cli.report and not self.directory.is_dir():
            raise ConfigError(f"{self.directory}: there is no such sweep to report on")
        if not cli.report:
            self._write_or_check()
        mode, _, self.metric = self.spec.partition(" ")
        self.study = open_study(self.directory, "maximize" if mode == "max" else "minimize")
        self.study.pruner = make_pruner(cli.pruner, cli.seeds * config["trainer"]["epochs"])
        self.trials = Trials(self.study, self.directory, space, points)

    def run(self) -> None:
        """Train trials until all of the sweep have a result, including those of other processes."""
        print(f"sweep {self.directory}: {self.trials.points.num_trials} trials, {self.spec}", flush=True)
        while not self.trials.are_done():
            with self.trials.next() as trial:
                if trial is not None:
                    self._run_one(trial)
            if trial is None and not self.trials.are_done():
                time.sleep(POLL_S)
        self._write_best()
        print(table(self.study, self.plan.space, self.metric))

    def _run_one(self, trial: Any) -> None:
        state = import_optuna().trial.TrialState
        print(f"trial {trial.number}: {text_of(values_of(trial, self.plan.space))}", flush=True)
        try:
            values = run_trial(self.plan, trial)
        except TrialPruned:
            self.study.tell(trial.number, state=state.PRUNED)
            print(f"trial {trial.number}: pruned", flush=True)
        except TrialFailed as error:
            trial.set_user_attr(ERROR, str(error))
            self.study.tell(trial.number, state=state.FAIL)
            print(f"trial {trial.number}: failed: {error}", flush=True)
        else:
            trial.set_user_attr(SEED_VALUES, values)
            mean = fmean(values)
            self.study.tell(trial.number, mean)
            best = ranked_trials(self.study)[0]
            so_far = f"best so far {best.value:.6g}, trial {best.number}"
            print(f"trial {trial.number}: {self.metric} {mean:.6g}; {so_far}", flush=True)
            self._write_best()

    def _write_best(self) -> None:
        with sweep_lock(self.directory), writing_to(self.directory):
            if trials := ranked_trials(self.study):
                config = self.plan.config_of(trials[0], name=self.given["name"])
                write_best(self.directory, config, trials[0], self.metric, self.plan.seeds)

    def _write_or_check(self) -> None:
        """Write what defines the sweep into its directory, or check that it matches what is there."""
        config = {key: value for key, value in self.given.items() if key not in ("device", "n_gpu")}
        space = [vars(parameter) | {"choices": list(parameter.choices)} for parameter in self.plan.space]
        now = json.loads(json.dumps({"config": config, "space": space, "seeds": self.plan.seeds}))
        with writing_to(self.directory):
            (self.directory / FILES).mkdir(parents=True, exist_ok=True)
            with sweep_lock(self.directory):
                if (self.directory / SWEEP_FILE).exists():
                    check_same_sweep(read_json(self.directory / SWEEP_FILE), now, self.directory)
                else:
                    write_json(now, self.directory / SWEEP_FILE)
