# Each target sets up what it needs: .venv, packages, and a software adapter where there is no GPU.
#
#   PYTHON=python3.12   the interpreter to build .venv from (3.11 or newer)
#   TORCH_INDEX=URL     a further package index for torch. On Linux, the default build of torch for the exporter
#                       brings several GB of CUDA libraries that nothing here uses; PyTorch's CPU-only index,
#                       named on its "Get Started" page, gives a build of 200 MB instead.
#   PIP_ARGS=...        anything else for pip install
#   PROMPT="..."        what `make demo` asks the model
#   PYTEST_ARGS="..."   for `make test`, for example PYTEST_ARGS="tests/ops -x"
#   TEST_WORKERS=2      processes that `make test` spreads the tests over, for a machine with 12 GB for each

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
PIP_ARGS ?=
PROMPT ?= Give me three tips for staying healthy.
PYTEST_ARGS ?=
TEST_WORKERS ?= 0
export PROMPT

BIN := $(VENV)/bin
# --no-compile: Python compiles what is imported, a small part of torch and Ray.
PIP := $(BIN)/pip install -qq --no-compile --disable-pip-version-check $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) $(PIP_ARGS)

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast check docs bench clean
.NOTPARALLEL:
.SECONDARY:
.DELETE_ON_ERROR:

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.ready-base ## Fetch a 135M-parameter language model (once), and let it answer on WebGPU
	@scripts/ensure_adapter.sh $(BIN)/python
	@$(BIN)/et-webgpu generate smollm2-135m --chat --prompt "$$PROMPT" --max-new-tokens 120 </dev/null

test: $(VENV)/.ready-dev ## Check style and types, then run all tests
	@$(MAKE) --no-print-directory check
	@scripts/ensure_adapter.sh $(BIN)/python
	@scripts/ensure_browser.sh
	@$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist worksteal $(PYTEST_ARGS)

test-fast: $(VENV)/.ready-test ## Run one case of each test that is quick and needs no torch: two minutes
	@scripts/ensure_adapter.sh $(BIN)/python
	@$(BIN)/python -m pytest --fast --durations=5 --durations-min=0.5 $(PYTEST_ARGS)

check: $(VENV)/.ready-lint ## Check style, formatting and types
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

docs: $(VENV)/.ready-docs ## Build the documentation into site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build -q --strict

bench: $(VENV)/.ready-bench ## Run the benchmarks
	@scripts/ensure_adapter.sh $(BIN)/python
	@$(BIN)/python -m bench

clean: ## Remove .venv and what tools left behind (models stay in the user's cache folder)
	@rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp for each extra of pyproject.toml, so that a target installs only what it uses, once.
# `dev` holds all others.
DEV_BRINGS := $(addprefix $(VENV)/.ready-,base bench docs lint test)
$(VENV)/.ready-base: pyproject.toml | $(VENV)/bin/python
	@echo "Installing executorch-webgpu into $(VENV)"
	@$(PIP) -e .
	@touch $@

$(VENV)/.ready-%: pyproject.toml | $(VENV)/bin/python
	@echo "Installing executorch-webgpu[$*] into $(VENV)$(if $(filter dev,$*), (with torch: some minutes))"
	@$(PIP) -e ".[$*]"
	@touch $@ $(if $(filter dev,$*),$(DEV_BRINGS))

$(VENV)/bin/python:
	@scripts/ensure_venv.sh $(PYTHON) $(VENV)
