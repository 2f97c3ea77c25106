# make demo     from a fresh clone to a verdict
# make test     from a fresh clone to passed tests
# make docs     the documentation site, in site/
#
# Both set up .venv with the newest working Python of 3.13, 3.12 and 3.11, else with 3.14;
# PYTHON=/path/to/python chooses another one.

VENV ?= .venv
PYTHON ?=
export PYTHON

RUN := $(VENV)/bin/python
DEMO := runs/demo
PYTEST := $(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: help install install-prepare install-peers demo docs test test-slow test-long test-slurm test-prepare test-all sanitize fuzz lint format lock

help:
	@sed -n 's/^# make/make/p' Makefile

install:
	@tools/install.sh $(VENV) requirements.lock

# Adds TensorFlow, which prepares new TFDS datasets. The large lock contains the small one, with the
# same versions, so nothing is installed twice.
install-prepare: install
	$(RUN) -m pip install -q -q --require-hashes --no-build-isolation -r requirements-prepare.lock

# The peers of the benchmark: Keras on TensorFlow and on JAX, and PyTorch (several GB).
install-peers:
	@tools/install.sh .venv-peers requirements-peers.lock no-project

demo: install
	$(RUN) -m experiments.compare_initializers \
	  --config=ml_collections_configs/compare_initializers.py:digits --workdir=$(DEMO) --overwrite

# Pages with a warning fail. The large lock contains the small one. Neither this, once it is installed,
# nor reading the pages needs a network.
docs: install
	$(RUN) -m pip install -q -q --require-hashes --no-build-isolation -r requirements-tools.lock
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict

# Run again, it takes less: compiled programs are kept in .pytest_cache.
test: install
	$(PYTEST) -m "not slow"

# The rest: whole runs, killed, on clusters and over hosts; the benchmark, notebooks, tutorials.
test-slow: install
	$(PYTEST) -m slow

# The tests of datasets with TensorFlow installed, including TFDS's preparation of a dataset.
test-prepare:
	@tools/install.sh .venv-prepare requirements-prepare.lock
	.venv-prepare/bin/python -m pytest tests/data

# Runs killed at twenty random moments instead of two, and small scaling measurements.
test-long: install
	JAXDL_LONG_TESTS=1 $(RUN) -m pytest tests/test_survival.py tests/experiments/test_measure_scaling.py

# Runs on a SLURM cluster of two nodes, set up on this machine; needs root, slurm-wlm and munge.
test-slurm: install
	JAXDL_SLURM_TESTS=1 $(RUN) -m pytest tests/population/test_slurm.py

# Looks for files that break a reader, for FUZZ_SECONDS on each of TARGETS; needs Linux and atheris.
TARGETS ?= worksheet dataset_file dataset_description dataset_info features array_record scores
FUZZ_SECONDS ?= 120
fuzz: install
	$(RUN) -m pip install -q --require-hashes --no-build-isolation -r requirements-tools.lock
	@for target in $(TARGETS); do \
	  echo "== $$target"; mkdir -p runs/fuzz/$$target; \
	  $(RUN) tools/fuzz.py $$target runs/fuzz/$$target -max_total_time=$(FUZZ_SECONDS) -timeout=20 \
	    -artifact_prefix=runs/fuzz/$$target- -print_final_stats=1 || exit 1; \
	done

# The C++ under GCC's sanitizers of addresses and of undefined behaviour.
sanitize: install
	@tools/sanitize.sh $(RUN)

# The tests on every supported Python that is installed.
test-all:
	@set -e; for version in 3.13 3.12 3.11; do \
	  if python=$$(PYTHON= tools/find_python.sh $$version 2>/dev/null); then \
	    echo "== Python $$version"; \
	    $(MAKE) --no-print-directory test test-slow VENV=.venv-$$version PYTHON=$$python; \
	  else \
	    echo "== Python $$version is not installed: skipped"; \
	  fi; \
	done

lint: install
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

format: install
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

# Needs uv (https://docs.astral.sh/uv). One resolution serves every supported Python and platform.
# Each lock has the versions of the first, and is the first and what its name says.
LOCK := uv pip compile --universal --python-version 3.11 --generate-hashes --quiet \
  --custom-compile-command "make lock"
EXTRAS := --extra test --extra cluster --extra tensorboard --extra notebook
lock:
	$(LOCK) pyproject.toml $(EXTRAS) --extra prepare -o requirements-prepare.lock
	$(LOCK) pyproject.toml $(EXTRAS) -c requirements-prepare.lock -o requirements.lock
	$(LOCK) pyproject.toml $(EXTRAS) --extra docs --extra fuzz --extra accessibility -c requirements-prepare.lock -o requirements-tools.lock
	$(LOCK) requirements-peers.in -o requirements-peers.lock
