# Everything runs in .venv, which is made when it is missing. Needs Python >= 3.11 (PYTHON=... to choose one) and make.
PYTHON ?= python3
RUN := .venv/bin/python
WORKERS ?= 2 # processes that run the suite
DATA := $(if $(PEP_DATA),PEP_DATA=$(abspath $(PEP_DATA)))

# Python and numba keep what they have compiled, also where the environment says not to: else every
# worker, and every command that a test starts, compiles all sources again
test slow: export PYTHONDONTWRITEBYTECODE =

# The suite writes some ten thousand small files: into memory where 2 GB of it are free (Linux)
MEMORY := $(shell test -w /dev/shm && df -Pm /dev/shm | awk 'NR == 2 && $$4 > 2000 {print "/dev/shm"}')
test: export PYTEST_DEBUG_TEMPROOT = $(MEMORY)

.PHONY: demo test check slow bench torture clean

demo: .venv/run
	$(RUN) demo.py

test: .venv/dev
	$(DATA) $(RUN) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not slow" \
		$(if $(MEMORY),-o tmp_path_retention_policy=failed)

slow: .venv/dev
	$(DATA) $(RUN) -m pytest -n $(WORKERS) --dist loadfile -m slow

check: .venv/dev
	$(RUN) -m ruff check .
	$(RUN) -m mypy
	$(MAKE) test

bench: .venv/dev
	$(RUN) benchmarks/bench_step.py

torture: .venv/dev
	$(RUN) -m benchmarks.torture
	$(RUN) -m benchmarks.torture --report

.venv/run: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	test -x $(RUN) || $(PYTHON) -m venv .venv
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

.venv/dev: .venv/run requirements-dev.txt
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
# a model to plug into; it asks for tensorflow, of which it uses four small classes that the test has stand-ins for
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps deepctr-torch==0.2.9
	touch $@

clean:
	rm -rf .venv tmp data/cache build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
