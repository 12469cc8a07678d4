# On a machine that has only Python >= 3.11, pip and make:
#   make demo   see what the program does
#   make test   run the tests
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# One thread per process: the tests run in two processes, on as few as two cores.
TEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest

.PHONY: demo test test-slow lint format bench bench-full bench-noise bench-coverage docs docs-links tutorials clean

demo: .venv/.installed
	$(BIN)/pudistill demo

test: .venv/.installed-dev
	$(TEST) -n 2 --dist worksteal -m "not slow"

test-slow: .venv/.installed-dev
	$(TEST) -m slow

lint: .venv/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: .venv/.installed-dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# Measure the speed; DATA is the folder that holds cifar10-features/, fashion-mnist/ and real-noise/.
DATA ?= ../shared/data

bench: .venv/.installed-bench
	$(BIN)/python -m benchmarks.speed --data $(DATA)

bench-full: .venv/.installed-bench
	$(BIN)/python -m benchmarks.speed --data $(DATA) --kinds short long

# Compare with other systems on real noise and on labels of several sources, and count losses on small problems.
bench-noise: .venv/.installed-bench
	$(BIN)/python -m benchmarks.robustness.real_noise --data $(DATA)
	$(BIN)/python -m benchmarks.robustness.sources --data $(DATA)
	$(BIN)/python -m benchmarks.robustness.never_lose

# Measure how often every interval and certificate holds: hours, in the background of other work.
DRAWS ?= 200

bench-coverage: .venv/.installed-bench
	$(BIN)/python -m benchmarks.robustness.simulation
	$(BIN)/python -m benchmarks.robustness.coverage --data $(DATA) --draws $(DRAWS)

# The site, in build/site/; it needs no network. Warnings are errors.
SPHINX := $(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -d build/doctrees

docs: .venv/.installed-docs
	$(SPHINX) -b html docs build/site

# Ask every other site that the docs link to.
docs-links: .venv/.installed-docs
	$(SPHINX) -b linkcheck docs build/links

# Execute the tutorials and store their outputs; NAMES="table pictures" chooses some.
NAMES ?=

tutorials: .venv/.installed-dev .venv/.installed-docs
	$(BIN)/python docs/tutorials/execute.py $(NAMES)

clean:
	rm -rf .venv build dist docs/generated docs/reference/api src/*.egg-info

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "pudistill needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv .venv

.venv/.installed: .venv/bin/python pyproject.toml constraints.txt
	@echo "Installing pudistill into .venv ..."
	$(PIP) -e .
	@touch $@

.venv/.installed-dev: .venv/bin/python pyproject.toml constraints.txt
	@echo "Installing pudistill and what its tests need into .venv ..."
	$(PIP) -e '.[torch,dev]'
	@touch $@ .venv/.installed

.venv/.installed-bench: .venv/.installed-dev
	@echo "Installing what pudistill is compared with into .venv ..."
	$(PIP) -e '.[torch,bench]'
	@touch $@

.venv/.installed-docs: .venv/bin/python pyproject.toml constraints.txt
	@echo "Installing pudistill and what its site needs into .venv ..."
	$(PIP) -e '.[docs]'
	@touch $@
