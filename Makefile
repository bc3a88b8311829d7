# Everything sets itself up: Python 3.11 or later (3.14 excluded) and make are all that is needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCH_STAMP := $(VENV)/.bench-installed
export PYTHONDONTWRITEBYTECODE :=
export PYTHONPATH :=
export AIRFLOW__CORE__LOAD_EXAMPLES := False

.PHONY: help demo ui test unit functional e2e forgeries check format bench clean
help:
	@echo "make demo        recover recordings in a real Airflow and check them against the originals"
	@echo "make ui          Airflow's UI with the demo's runs in it"
	@echo "make test        all tests; make unit, make functional and make e2e run one kind"
	@echo "make check       ruff, mypy and the import rules"
	@echo "make forgeries   thousands of forged ledgers, each to be found; the figures are in docs/reliability_audit.md"
	@echo "make bench       measure; the figures are in docs/performance.md"
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

demo: $(STAMP)
	@$(BIN)/python demo/play.py

ui: $(STAMP)
	@$(BIN)/python demo/ui.py

test: unit functional e2e

unit functional e2e: $(STAMP)
	$(BIN)/python -m pytest -q tests/$@

# Thousands of forged ledgers, and an audit of a million entries: some ten minutes.
forgeries: $(STAMP)
	LIVEKIT_BACKUP_FORGERIES=5000 $(BIN)/python -m pytest -q tests/unit/test_audit_forgeries.py
	PYTHONPATH=plugins $(BIN)/python tests/unit/audit_at_scale.py 1000000

check: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/unit/test_architecture.py

format: $(STAMP)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(BENCH_STAMP)
	$(BIN)/python benchmarks/run.py

clean:
	rm -rf $(VENV) .demo .embedded-s3 .mypy_cache .pytest_cache .ruff_cache .hypothesis .cache
