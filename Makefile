# `make demo` and `make test` need Python ≥ 3.11 and nothing else; everything goes into .venv.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
# Compiling keeps one core busy at a time. A file stays in one process, which caches its networks;
# files go out in tests/conftest.py's order.
IN_PARALLEL := -n 2 --dist loadfile --no-loadscope-reorder
ON_SLURM := tests/launch/test_real_slurm.py

.PHONY: demo test test-slow requirements clean

# Trains and evaluates on the built-in synthetic data set; results in runs/synthetic.
demo: $(VENV)/installed
	$(RUN) -m magnifier_jax.main --config=configs/synthetic.py

test: $(VENV)/installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(RUN) -m pytest $(IN_PARALLEL) -m 'not slow'

# The others: at full resolution, with several processes that are killed, on real images.
# Those on a SLURM cluster come first and alone: they wait for its clock, and last longer beside others.
test-slow: $(VENV)/installed
	$(RUN) -m pytest -m slow $(ON_SLURM)
	$(RUN) -m pytest $(IN_PARALLEL) -m slow --ignore=$(ON_SLURM)

$(VENV)/installed: requirements.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one with make PYTHON=…")'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

# Resolves pyproject.toml again; needs uv.
requirements:
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --upgrade \
	  --custom-compile-command 'make requirements' --output-file requirements.txt

clean:
	rm -rf $(VENV)
