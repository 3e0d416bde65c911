# make demo: installs into .venv and finds the addition and multiplication modules of a small network.
# make test | slow | lint | bench | notebooks | docs: in the same environment. make clean: removes it.
# make bench BENCH_ARGS=--full: also PyTorch (extra bench-torch), ResNet-110 and the slowest naive masks.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PYTEST_ARGS ?=
BENCH_ARGS ?=

.PHONY: demo test slow lint bench notebooks docs clean

demo: $(INSTALLED)
	$(BIN)/python -m experiments.addmul --preset=quick --workdir=runs/addmul-quick

test: $(INSTALLED)
	$(BIN)/python -m pytest -q -n auto --dist=loadfile $(PYTEST_ARGS)

slow: $(INSTALLED)
	$(BIN)/python -m pytest -q -m slow $(PYTEST_ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/basedpyright --pythonpath $(BIN)/python

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks.rng
	$(BIN)/python -m benchmarks.mask_step --rounds=3 $(BENCH_ARGS)
	$(BIN)/python -m benchmarks.sweep --rounds=3
	$(BIN)/python -m benchmarks.joined --rounds=3
	$(BIN)/python -m benchmarks.scaling --rounds=3
	$(BIN)/python -m benchmarks.convolution --rounds=1
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.structure --shuffles=64 --rounds=3 --networks=10 --calibrated=0

notebooks: $(INSTALLED)
	$(BIN)/python notebooks/execute.py

docs: $(INSTALLED)
	$(BIN)/python docs/make_api.py

clean:
	rm -rf $(VENV)

# The file is made last, so an installation that failed half-way is taken up again.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "jaxmod needs Python 3.11 or newer, and '$(PYTHON)' is not: $$($(PYTHON) --version 2>&1)."; \
	  echo "Name another one: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; } >&2
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "'$(PYTHON) -m venv' failed (see above). Some systems package it apart: on Debian and Ubuntu,"; \
	  echo "apt-get install python3-venv. Then type the same command again."; exit 1; } >&2
	@echo "installing into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' -c constraints.txt
	@touch $@
