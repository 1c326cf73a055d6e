PYTHON ?= python3
VENV := .venv
TOEDIT := $(VENV)/bin/toedit
PIP := $(VENV)/bin/python -m pip install -q --disable-pip-version-check
LOCK := $(VENV)/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header
# Tests and steps use what is installed in .venv, never what the caller's environment offers.
unexport PYTHONPATH PYTHONHOME

.PHONY: reproduce reproduce-full test check verify test-peers bench paper lock clean

reproduce: $(VENV)/installed
	$(TOEDIT) reproduce

# The committed results that `make reproduce` shows beside its live ones (an hour and a half; killed, it goes on where it was).
reproduce-full: $(VENV)/installed
	$(VENV)/bin/python -m paper.full_experiments

test: $(VENV)/installed
	$(VENV)/bin/pytest -n 2 --dist loadfile

check: $(VENV)/installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright

verify: $(VENV)/installed $(VENV)/tpu/installed $(VENV)/ray/installed
	$(VENV)/bin/pytest -m slow --durations=0

test-peers: $(VENV)/installed-peers
	$(VENV)/bin/pytest -m peers tests/peers

bench: $(VENV)/installed
	$(VENV)/bin/python -m benchmarks

paper: $(VENV)/installed
	$(TOEDIT) paper

# One for all versions of Python. The few pins of requirements-peers.lock stand on top of it and are kept by hand.
lock: $(VENV)/installed
	$(PIP) uv
	$(LOCK) --extra dev -o requirements.lock pyproject.toml

$(VENV)/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 13) or sys.exit("make: the locked \
	environment is for Python 3.11 to 3.13 and this is %d.%d; run make PYTHON=python3.11" % v)'
	@echo "Installing the locked environment (a minute or two) ..."
	$(PYTHON) -m venv $(VENV)
	$(PIP) --require-hashes -r requirements.lock
	$(PIP) --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/installed-peers: requirements-peers.lock $(VENV)/installed
	@$(VENV)/bin/python -c 'import sys; v = sys.version_info[:2]; v == (3, 11) or sys.exit("make: the pins of the \
	peers are for Python 3.11 and $(VENV) has %d.%d; run make clean, then make test-peers PYTHON=python3.11" % v)'
	$(PIP) --require-hashes -r requirements-peers.lock
	touch $@

# Apart from the other packages, for single tests: where JAX finds the compiler for TPUs, it looks for a TPU.
$(VENV)/%/installed: requirements-%.lock $(VENV)/installed
	$(PIP) --require-hashes --no-deps --upgrade --target $(VENV)/$* -r $<
	touch $@

clean:
	rm -rf $(VENV) results
