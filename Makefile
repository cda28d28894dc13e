# The doors of the project; each sets up what it needs.
.PHONY: setup demo test check bench fuzz clean

SOURCES = src tests fuzz bench
PROSE = README.md CHANGELOG.md SECURITY.md docs
SCRIPTS = scripts .ci Makefile
TOOLS_OF_TESTS = apptainer attr btrfs busybox chromium crun debootstrap fuse2fs \
  fusermount3 gcc getfattr git glusterfs glusterfsd gpg gpg-agent gpgv libfuse3-dev \
  lsattr mkfs.ext4 munged nginx ordinary-user pkg-config ps rpmbuild rsync setpriv \
  slurmctld slurmd squid srun strace

setup:
	@scripts/setup

demo: setup
	@scripts/demo

test: setup
	@scripts/prepare-machine $(TOOLS_OF_TESTS)
	.venv/bin/python -m pytest $(PYTEST_ARGS)

check: setup
	.venv/bin/ruff format --check $(SOURCES)
	.venv/bin/ruff check $(SOURCES)
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/codespell $(PROSE) $(SOURCES) $(SCRIPTS)

bench: setup
	@scripts/prepare-machine $(TOOLS_OF_TESTS)
	.venv/bin/python -m bench $(BENCH_ARGS)

fuzz: setup
	.venv/bin/python fuzz/run.py --seconds 60

clean:
	rm -rf .venv .bench .containers bench.json build src/*.egg-info
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find $(SOURCES) -name __pycache__ -exec rm -rf {} +
