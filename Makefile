# Everything sets itself up: Python 3.11 or later (3.14 excluded) and make are all that is needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCH_STAMP := $(VENV)/.bench-installed
FUZZ_STAMP := $(VENV)/.fuzz-installed
export PYTHONDONTWRITEBYTECODE :=
export PYTHONPATH :=
export AIRFLOW__CORE__LOAD_EXAMPLES := False

.PHONY: help demo ui test unit functional e2e soak fuzz forgeries check format bench clean
# Files of tests that run side by side; 0 runs them one after the other.
WORKERS ?= 2
SEED ?= 1
RUNS ?= 5000
help:
	@echo "make demo        recover recordings in a real Airflow and check them against the originals"
	@echo "make ui          Airflow's UI with the demo's runs in it"
	@echo "make test        all tests; make unit, make functional and make e2e run one kind"
	@echo "make soak        the recovery among thousands of simulated faults: SEED=1 RUNS=5000, or REPLAY=1/137 for one run"
	@echo "make check       ruff, mypy, the import rules and the pinned dependencies"
	@echo "make forgeries   thousands of forged ledgers, each to be found; the figures are in docs/reliability.md"
	@echo "make bench       measure; the figures are in docs/performance.md"
	@echo "make fuzz        over a million hostile inputs; the figures are in docs/reliability.md"
	@echo "make format      let ruff mend and format"
	@echo "make clean       remove all that the above have made"

# Bytecode is compiled at once: without it every Airflow process compiles all of Airflow again.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9 || true
	$(BIN)/uv pip install --python $(BIN)/python --quiet --compile-bytecode -c constraints.txt -e '.[dev]' \
	  || $(BIN)/python -m pip install --quiet --compile -c constraints.txt -e '.[dev]'
	touch $(STAMP)

# The peers that the transfers are measured against, and what draws the plot.
$(BENCH_STAMP): $(STAMP)
	$(BIN)/uv pip install --python $(BIN)/python --quiet --compile-bytecode -c constraints.txt -e '.[bench]' \
	  || $(BIN)/python -m pip install --quiet --compile -c constraints.txt -e '.[bench]'
	touch $(BENCH_STAMP)

# Fuzzing that follows the coverage, for whom tests/fuzz is run by hand.
$(FUZZ_STAMP): $(STAMP)
	$(BIN)/uv pip install --python $(BIN)/python --quiet --compile-bytecode -c constraints.txt -e '.[fuzz]' \
	  || $(BIN)/python -m pip install --quiet --compile -c constraints.txt -e '.[fuzz]'
	touch $(FUZZ_STAMP)

demo: $(STAMP)
	@$(BIN)/python demo/play.py

ui: $(STAMP)
	@$(BIN)/python demo/ui.py

test: unit functional e2e

unit functional e2e: $(STAMP)
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile tests/$@

soak: $(STAMP)
	PYTHONPATH=tests $(BIN)/python -m soak $(if $(REPLAY),--replay $(REPLAY),--seed $(SEED) --runs $(RUNS))

# Thousands of forged ledgers, and an audit of a million entries: some ten minutes.
forgeries: $(STAMP)
	LIVEKIT_BACKUP_FORGERIES=5000 $(BIN)/python -m pytest -q tests/unit/test_audit_forgeries.py
	PYTHONPATH=plugins $(BIN)/python tests/unit/audit_at_scale.py 1000000

check: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/unit/test_architecture.py tests/unit/test_dependencies.py

format: $(STAMP)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(BENCH_STAMP)
	$(BIN)/python benchmarks/run.py

fuzz: $(FUZZ_STAMP)
	nice -n 19 $(BIN)/python tests/fuzz/run_campaign.py

clean:
	rm -rf $(VENV) .demo .fuzz .embedded-s3 .mypy_cache .pytest_cache .ruff_cache .hypothesis .cache
