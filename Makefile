# Every target sets itself up: a virtual environment in .venv with the versions of constraints.txt.
# PIP_FLAGS goes to every pip call, for example: make test PIP_FLAGS="--index-url https://my.index/simple"

PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
PIP_FLAGS ?=
BIN := $(VENV)/bin
# tiny models gain nothing from many threads, and a fixed hash seed keeps runs alike
export TOKENIZERS_PARALLELISM := false

.PHONY: demo test check bench format lint types docs oldest clean

demo: $(VENV)/.demo
	$(BIN)/pellucid demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n auto --durations=5

check: lint types test

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.dev
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks --out bench-out

# the pages that the registries tell are made anew, then both builders make the site in site/; no page may ask another host
docs: $(VENV)/.dev
	$(BIN)/python docs/generate.py
	$(BIN)/zensical build --strict --clean
	$(BIN)/python docs/generate.py --site site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	$(BIN)/python docs/generate.py --site site

# parity and contract against the oldest supported transformers
oldest:
	$(MAKE) VENV=.venv-oldest CONSTRAINTS=constraints-oldest.txt .venv-oldest/.dev
	.venv-oldest/bin/python -m pytest -n auto tests/test_parity.py tests/test_contract.py tests/test_zoo.py tests/test_train.py

$(VENV)/.demo: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(PIP_FLAGS) -c $(CONSTRAINTS) -e ".[info]"
	touch $@

$(VENV)/.dev: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(PIP_FLAGS) -c $(CONSTRAINTS) -e ".[dev]"
	touch $@ $(VENV)/.demo

clean:
	rm -rf .venv .venv-oldest build dist site bench-out pellucid-demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
