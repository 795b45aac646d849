# Two commands do everything on a fresh machine that has Python, make and a package index:
#   make sweep   environment, default sweep, report
#   make test    the same environment, all tests
PYTHON ?= python3
VENV ?= .venv
SWEEP ?=
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: help sweep quality test lint perf clean

help:
	@echo "make sweep    time FT-Mamba and FT-Transformer on this machine, write reports/local-*.html"
	@echo "make quality  train and rank both on MovieLens 100K (about 3 minutes on two cores)"
	@echo "make test     run all tests"
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

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

perf: $(VENV)/.installed-dev
	$(BIN)/python -m pytest --benchmark-only tests/perf

clean:
	rm -rf $(VENV) build *.egg-info
