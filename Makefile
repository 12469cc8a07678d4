# On a machine that has only Python >= 3.11, pip and make:
#   make demo   see what the program does
#   make test   run the tests
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# One thread per process: the tests run in two processes, on as few as two cores.
TEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest

.PHONY: demo test test-slow test-lowest dist lint format bench bench-full bench-noise bench-coverage \
	docs docs-links tutorials clean

demo: .venv/.installed
	$(BIN)/pudistill demo

test: .venv/.installed-dev
	$(TEST) -n 2 --dist worksteal -m "not slow"

test-slow: .venv/.installed-dev
	$(TEST) -m slow

# What follows runs in an environment of its own outside of this folder, which goes when the tests are done.
OUTSIDE = place=$$(mktemp -d) && trap 'rm -rf "$$place"' EXIT && $(PYTHON) -m venv "$$place/venv" && python="$$place/venv/bin/python"
OUTSIDE_INSTALL = "$$python" -m pip install --quiet --disable-pip-version-check
OUTSIDE_TEST = OMP_NUM_THREADS=1 "$$python" -m pytest -p no:cacheprovider -m "not slow" $(TESTS)
TESTS ?= tests

# Run the tests with the lowest version that pyproject.toml admits of each dependency, without networks.
test-lowest:
	$(OUTSIDE) && \
	$(PYTHON) tests/lowest_versions.py > "$$place/lowest.txt" && \
	$(OUTSIDE_INSTALL) -c "$$place/lowest.txt" '.[review]' httpx hypothesis pytest && \
	"$$python" -m pip freeze && \
	$(OUTSIDE_TEST)

# Build the wheel and the source distribution, and run the tests of the one against the other.
# With EXTRAS=review and the like instead of dev, tests of what is not installed are skipped.
EXTRAS ?= torch,dev

dist: .venv/.installed-release
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*
	$(OUTSIDE) && \
	mkdir "$$place/source" && tar -xzf dist/*.tar.gz --strip-components=1 -C "$$place/source" && \
	$(OUTSIDE_INSTALL) -c constraints.txt "$$(echo dist/*.whl)[$(EXTRAS)]" httpx hypothesis pytest && \
	cd "$$place/source" && \
	"$$python" -c 'import pudistill; print("Testing", pudistill.__file__)' && \
	$(OUTSIDE_TEST)

lint: .venv/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff check --preview --select unspecified-encoding src
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: .venv/.installed-dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# Measure the speed; DATA is the folder that holds cifar10/, cifar10-features/, fashion-mnist/, real-noise/ and texts/.
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
	rm -rf .venv build dist docs/generated docs/reference/api

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

.venv/.installed-release: .venv/bin/python pyproject.toml
	@echo "Installing what builds and checks distributions into .venv ..."
	$(PIP) build twine
	@touch $@

.venv/.installed-bench: .venv/.installed-dev
	@echo "Installing what pudistill is compared with into .venv ..."
	$(PIP) -e '.[torch,bench]'
	@touch $@

.venv/.installed-docs: .venv/bin/python pyproject.toml constraints.txt
	@echo "Installing pudistill and what its site needs into .venv ..."
	$(PIP) -e '.[docs]'
	@touch $@
