# Each target sets up .venv by itself, once: it is made again only when the requirements change.
PYTHON  ?= python3.11
PROFILE ?= laptop
VENV    := .venv
BIN     := $(VENV)/bin
READY   := $(VENV)/.ready

.PHONY: figures test lab lint format clean
.DEFAULT_GOAL := figures

$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 or newer is needed: install it, or say make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $@

figures: $(READY)  ## every table and figure, into figures/$(PROFILE)
	$(BIN)/python -m maft_lib.notebooks $(PROFILE)

test: $(READY)  ## the whole test suite, notebooks included
	$(BIN)/python -m pytest

lab: $(READY)  ## JupyterLab in notebooks/
	$(BIN)/jupyter lab notebooks/00_quickstart.ipynb

lint: $(READY)  ## style, types and stripped notebooks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/nbstripout --verify notebooks/*.ipynb

format: $(READY)  ## writes code and notebooks in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/nbstripout notebooks/*.ipynb

clean:  ## removes what runs have left; the environment stays
	rm -rf runs figures/smoke .pytest_cache .mypy_cache .ruff_cache
