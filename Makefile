# What a newcomer, a developer and the continuous integration run. Everything is installed in .venv; `make help` lists the rest.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
FACTS := pyproject.toml setup.cfg constraints.txt

# -qq hides pip's chatter and warnings, not its errors.
INSTALL = $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e
# What `fsp quickstart` needs, compiled while the rest is installed. If that fails, it is compiled when it is needed.
COMPILE = $(BIN)/python -m fsp_dynamics train digits --dry-run --no-progress > /dev/null
# One BLAS thread for each test process: there is one process for each core, and idle BLAS threads spin.
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MPLBACKEND=Agg
# A file's tests stay in one process, so that two processes seldom compile the same kernels; tests/conftest.py says which
# files come first.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
# What kernels do is tested here; these run once as plain Python, where their lines are counted, and once with checked indices.
KERNELS := tests/kernels $(addprefix tests/,solvers/test_numba_ode.py solvers/test_packed_layers.py solvers/test_fixed_point.py training learning)

.DEFAULT_GOAL := quickstart
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help quickstart explore test rest test-all mutants fuzz lint format docs bench clean

help:
	@echo "make           set up .venv and train the first network (fsp quickstart)"
	@echo "make explore   set up .venv and open the explorer in the browser (fsp explore; make explore RUN=quickstart for a run)"
	@echo "make test      set up .venv, then lint, types and tests: ten minutes on two cores"
	@echo "make test-all  that, then what is slow and rare, kernels as plain Python and with checked indices, coverage, and docs"
	@echo "make mutants   plant more than a hundred defects, one at a time, each of which a test must notice (half an hour; make mutants MUTANTS='--only rho')"
	@echo "make fuzz      hand a million mutated files to the readers of IDX, TOML and checkpoints (half an hour; make fuzz FUZZ='toml --runs 20000')"
	@echo "make lint      ruff and mypy alone"
	@echo "make format    let ruff rewrite what it can"
	@echo "make docs      the documentation, notebooks executed, in docs/_build/html"
	@echo "make bench     speed beside backpropagation, up to 25 minutes (fsp bench; make bench BENCH=--quick for a look)"
	@echo "make clean     remove .venv and caches; runs stay"
	@echo "Another Python (3.11 or newer): make PYTHON=python3.12"

quickstart: $(VENV)/ready
	@$(BIN)/fsp quickstart

explore: $(VENV)/ready
	@$(BIN)/fsp explore $(RUN)

test: lint
	$(ONE_THREAD) $(PYTEST) $(COVER) -m "not rare"

# What `make test` leaves out. Compiled kernels run unseen: their lines are counted where they are plain Python.
rest: $(VENV)/ready-for-tests
	$(ONE_THREAD) $(PYTEST) $(COVER) $(APPEND) -m rare
	NUMBA_DISABLE_JIT=1 $(ONE_THREAD) $(PYTEST) $(COVER) $(APPEND) -m "not slow and not cli" $(KERNELS)
	$(FLOOR)
	NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR=.numba-checked $(ONE_THREAD) $(PYTEST) -m "not slow and not cli" $(KERNELS)

# Coverage makes tests a third slower, so it is counted here alone.
test-all: COVER := --cov --cov-report=
test-all: APPEND := --cov-append
test-all: FLOOR = $(BIN)/coverage report --skip-covered --fail-under=90
test-all: test rest docs

# Outside the continuous integration: what the tests themselves are worth. A run that was stopped goes on where it was.
mutants: $(VENV)/ready-for-tests
	$(ONE_THREAD) nice $(BIN)/python tests/mutants.py $(MUTANTS)

fuzz: $(VENV)/ready-for-fuzzing
	$(ONE_THREAD) nice $(BIN)/python tests/fuzzing.py $(FUZZ)

lint: $(VENV)/ready-for-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/ready-for-tests
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/ready-for-tests
	MPLBACKEND=Agg $(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

bench: $(VENV)/ready-for-tests
	$(BIN)/fsp bench $(BENCH)

clean:
	rm -rf $(VENV) build dist docs/_build docs/gallery *.egg-info .coverage* .numba-checked .mutants .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find fsp_dynamics tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

# Set-up. A stamp is older than the facts only when there is something to install, so a second `make` starts at once.
$(VENV)/made:
	@command -v $(PYTHON) > /dev/null || { echo "$(PYTHON) is not on the PATH; name a Python 3.11 or newer: make PYTHON=python3" >&2; exit 1; }
	@echo "Setting up $(VENV), once: a minute or a few, most of it to download packages"
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/ready: $(VENV)/made $(FACTS)
	@echo "  installing the package and what it needs"
	@$(INSTALL) .
	@echo "  installing torch, and compiling the kernels meanwhile"
	@$(COMPILE) & $(INSTALL) '.[torch]'; failed=$$?; wait; exit $$failed
	@touch $@

$(VENV)/ready-for-tests: $(VENV)/made $(FACTS)
	@echo "  installing the package and what tests, notebooks and documentation need"
	@$(INSTALL) '.[torch,notebook,test,docs,cluster,onnx,nir]'
	@touch $(VENV)/ready $@

$(VENV)/ready-for-fuzzing: $(VENV)/ready-for-tests
	@echo "  installing what fuzzing needs"
	@$(INSTALL) '.[fuzz]'
	@touch $@
