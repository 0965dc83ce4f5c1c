# From a fresh machine: `make quickstart` for a leaderboard, `make test` for the checks.
# The first target that needs it makes .venv and installs; after that nothing here uses the network.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := test

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
QUICKSTART := results/quickstart
# On two cores; `PYTEST_ARGS=` is one test after the other.
PYTEST_ARGS ?= -n 2
# Which tests `make test` runs. `make test MARKERS="not long and not gpu"` adds the slow ones.
MARKERS ?= not slow and not long and not gpu

# Data and weights come from the package; a test that asks a hub for anything is a bug.
export HF_HUB_OFFLINE := 1
export HF_DATASETS_OFFLINE := 1
export TRANSFORMERS_OFFLINE := 1

.PHONY: test quickstart lint types pytest slow gpu long format wheel readme readme-table clean

test: lint types pytest

quickstart: $(STAMP)
	$(BIN)/tempeval quickstart -o $(QUICKSTART)

$(STAMP): pyproject.toml
	@if [ ! -x $(BIN)/python ]; then \
	  $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "error: '$(PYTHON) -m venv' failed; on Debian or Ubuntu install python3-venv (it brings ensurepip), or set PYTHON=" >&2; exit 1; }; \
	fi
	@echo 'installing into $(VENV): minutes, and several GB with torch'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'setuptools>=77'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation -e '.[dev]'
	@touch $@

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# mypy follows neither the editable finder nor the checkout guard, so it gets the package as it
# ships: a folder of links.
types: $(STAMP)
	@rm -rf .typing && mkdir -p .typing/tempeval
	@ln -s $(CURDIR)/tempeval/* .typing/tempeval/
	@ln -s $(CURDIR)/tasks $(CURDIR)/model_wrappers $(CURDIR)/leaderboard .typing/tempeval/
	cd .typing && MYPYPATH=. ../$(BIN)/mypy --config-file ../pyproject.toml --cache-dir ../.mypy_cache -p tempeval

pytest: $(STAMP)
	$(BIN)/python -m pytest -m "$(MARKERS)" $(PYTEST_ARGS)

slow: $(STAMP)
	$(BIN)/python -m pytest -m "slow and not long and not gpu" $(PYTEST_ARGS)

gpu: $(STAMP)
	$(BIN)/python -m pytest -m gpu $(PYTEST_ARGS)

# The whole suite with the newest releases that the package accepts, in an environment of its own
# and whatever pip is told on this machine; adds a line to docs/versions.md. LONG_ARGS: pytest's.
# First, no number of any method may differ from those of commit EQUALITY, bit for bit (alone:
# `.venv/bin/python .ci/equality.py COMMIT [--runs]`).
NEWEST := .venv-newest
LONG_ARGS ?= -n 2
EQUALITY ?= HEAD~1
long:
	@[ -x $(NEWEST)/bin/python ] || $(PYTHON) -m venv $(NEWEST)
	PIP_CONFIG_FILE=/dev/null $(NEWEST)/bin/python -m pip install --quiet --upgrade 'setuptools>=77'
	PIP_CONFIG_FILE=/dev/null $(NEWEST)/bin/python -m pip install --quiet --upgrade --upgrade-strategy eager --no-build-isolation -e '.[dev]'
	$(NEWEST)/bin/python .ci/equality.py $(EQUALITY)
	$(NEWEST)/bin/python .ci/equality.py $(EQUALITY) --runs
	PATH="$(CURDIR)/$(NEWEST)/bin:$$PATH" $(NEWEST)/bin/python .ci/newest.py $(LONG_ARGS)

# build/ is removed first: setuptools would ship modules that were deleted since.
wheel: $(STAMP)
	rm -rf build dist
	$(BIN)/python -m build --wheel --no-isolation

# Writes the generated blocks of the README (methods, benchmarks), the benchmarks' pages, that of
# the leaderboard's files, and the table that `make quickstart` made.
readme: $(STAMP)
	$(BIN)/python .ci/readme.py
	$(BIN)/python .ci/benchmark_docs.py
	$(BIN)/python .ci/leaderboard_docs.py
	$(BIN)/python .ci/options_docs.py
	$(BIN)/python .ci/record_docs.py
readme-table: $(STAMP)
	$(BIN)/python .ci/readme.py --table $(QUICKSTART)/leaderboard/leaderboard.md

clean:
	rm -rf build dist .typing .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	find tempeval tasks model_wrappers leaderboard tests -name __pycache__ -type d -exec rm -rf {} +
