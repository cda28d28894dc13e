# The doors of the project; each sets up what it needs.
.PHONY: setup demo test check bench fuzz clean

PYTHON_IN = .venv/bin/python

setup:
	@scripts/setup

demo: setup
	@scripts/demo

test: setup
	@scripts/prepare-machine
	$(PYTHON_IN) -m pytest $(PYTEST_ARGS)

check: setup
	.venv/bin/ruff format --check src tests fuzz bench
	.venv/bin/ruff check src tests fuzz bench
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/codespell README.md CHANGELOG.md SECURITY.md docs src tests bench fuzz scripts

bench: setup
	@scripts/prepare-machine
	$(PYTHON_IN) -m bench $(BENCH_ARGS)

fuzz: setup
	$(PYTHON_IN) fuzz/run.py --seconds 60

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
