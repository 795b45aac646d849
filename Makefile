# Two commands do everything on a fresh machine that has Python, make and a package index:
#   make sweep   environment, default sweep, report
#   make test    the same environment, all tests
PYTHON ?= python3
VENV ?= .venv
SWEEP ?=
TESTS ?=
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: help sweep quality gpu test test-lowest test-newest lint perf clean

help:
	@echo "make sweep    time FT-Mamba and FT-Transformer on this machine, write reports/local-*.html"
	@echo "make quality  train and rank both on MovieLens 100K (about 3 minutes on two cores)"
	@echo "make gpu      all that is to be measured on a GPU, part by part; the same command again goes on"
	@echo "make test     run all tests"
	@echo "make test-lowest, make test-newest: the same with the lowest, the newest versions that pyproject.toml allows"
	@echo "make lint     ruff and mypy"
	@echo "make perf     pytest-benchmark timings of ops and model steps"

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) --editable '.[dev]'
	@touch $@

sweep: $(VENV)/.installed
	$(BIN)/python -m bench.sweep $(SWEEP)

quality: $(VENV)/.installed
	$(BIN)/python -m bench.datasets fetch movielens-100k
	$(BIN)/python -m bench.quality --preset quick

# What its time did not suffice for is done by the same command again. No part needs a network.
GPU_PARTS ?= gpu-smoke gpu-check gpu-sweep gpu-ops gpu-blocks gpu-profile gpu-quality gpu-eager gpu-float32 gpu-ops-more
GPU_OUT ?= results/gpu
GPU_SECONDS ?= 450
GPU_FLAGS ?=

gpu: $(VENV)/.installed
	@for part in $(GPU_PARTS); do \
	  out=$(GPU_OUT)/$$part; resume=; if [ -e $$out/run.json ]; then resume=--resume; fi; \
	  echo "$$part"; code=0; \
	  $(BIN)/python -m bench.sweep --preset $$part --seconds $(GPU_SECONDS) --quiet --out $$out $$resume $(GPU_FLAGS) \
	    || code=$$?; \
	  if [ $$code != 0 ]; then failed=$$code; fi; if [ $$code = 2 ]; then break; fi; \
	done; exit $${failed:-0}

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest

# In an environment of their own, without constraints. Lowest means lowest of those that have a wheel for $(PYTHON).
test-lowest test-newest: test-%:
	$(PYTHON) -m venv --clear $(VENV)-$*
	$(VENV)-$*/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(VENV)-$*/bin/uv pip install --quiet --python $(VENV)-$*/bin/python --only-binary :all: \
	  --resolution $(if $(filter lowest,$*),lowest-direct,highest) --editable '.[dev]'
	$(VENV)-$*/bin/python -m pytest $(TESTS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

perf: $(VENV)/.installed-dev
	$(BIN)/python -m pytest --benchmark-only tests/perf

clean:
	rm -rf $(VENV) $(VENV)-lowest $(VENV)-newest build *.egg-info
