# The commands of the README. Those without make find the same in plain pip there.
PYTHON ?= python3
CONFIG ?= config.json
ARGS ?=
BIN = .venv/bin
BENCH_BIN = .venv-bench/bin

.PHONY: train test soak tensorboard lint format docs bench clean clean-cache

train: .venv/.installed
	$(BIN)/python train.py -c $(CONFIG) $(ARGS)

test: .venv/.installed-dev
	$(BIN)/python -m pytest $(ARGS)

soak: .venv/.installed-dev
	$(BIN)/python -m pytest -m slow $(ARGS)

tensorboard: .venv/.installed
	$(BIN)/tensorboard --logdir saved $(ARGS)

lint: .venv/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy .

format: .venv/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Written from the definitions that check a config: the schema for editors, and the table in docs/config.md.
docs: .venv/.installed
	$(BIN)/python train.py --schema
	$(BIN)/python -m parse_config.reference docs/config.md

# Measures this project beside others and writes BENCHMARKS.md. The others stay out of .venv, which start-up is measured in.
bench: .venv/.installed .venv-bench/.installed
	$(BENCH_BIN)/python benchmarks/run.py --python $(BIN)/python $(ARGS)

# Tables that were converted; the next run of each reads its file again. Not while a run uses one.
clean-cache:
	rm -rf saved/.cache

clean:
	rm -rf .venv .venv-bench .pytest_cache .ruff_cache .mypy_cache

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.installed: .venv/bin/python requirements.txt
	$(BIN)/python -m pip install -q -r requirements.txt
	touch $@

.venv/.installed-dev: .venv/.installed requirements-dev.txt requirements-extras.txt
	$(BIN)/python -m pip install -q -r requirements-dev.txt
	touch $@

.venv-bench/.installed: requirements.txt benchmarks/requirements.txt
	$(PYTHON) -m venv .venv-bench
	$(BENCH_BIN)/python -m pip install -q -r requirements.txt -r benchmarks/requirements.txt
	touch $@
