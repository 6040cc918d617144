# make screen   the demo campaign        make test       the tests
# make install  only the environment     make check      lint and types
# make test-slow  what is too slow for every day
# make test-cluster  campaigns on a Slurm with four fake GPUs, installed first where apt-get and root are there
PYTHON := $(shell for p in python3 python3.14 python3.13 python3.12 python; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null && { command -v $$p; break; }; done)
BIN := .venv/bin

.PHONY: install screen test test-slow test-cluster check clean

install: .venv/installed

.venv/installed: pyproject.toml
ifeq ($(PYTHON),)
	@echo "No Python 3.12 or newer found (tried python3, python3.14, python3.13, python3.12, python)." >&2
	@echo "Install one (https://www.python.org, or 'pyenv install 3.12', or 'conda create -n matris python=3.12'), then run make again." >&2
	@exit 1
else
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing into .venv (some minutes the first time: torch is large) ..."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@
endif

screen: install
	$(BIN)/matris screen --chemsys Li-Mg-O --store demo-results --report demo-results/report

test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow and not cluster" -n auto --maxprocesses 4

test-slow: install
	$(BIN)/python -m pytest -m slow

test-cluster: install
	tests/cluster/install_slurm.sh
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m cluster tests/cluster -n 2 --dist loadfile

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv demo-results matris-results build *.egg-info
