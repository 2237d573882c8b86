# make run    the dashboard and the loop (with a simulated system when there are no metrics yet)
# make test   every test but the soak, in parallel
# make shots  pictures of every page into shots/ (needs Chromium)
# make check  format, lint, types and the fast tests
# make bench  every benchmark beside its peers: about 20 minutes on two idle cores; QUICK=1: about 10, rough
# make example  a real service under a real load, tuned from practice to a loan and back: about 18 minutes (needs Chromium)
# make dist   sdist and wheel into dist/
# make soak   days of the loop on simulated systems; minutes of work
#
# PYTHON=python3.12 make test   uses another interpreter for a new .venv (3.11 or newer).

PYTHON ?= python3
PY := .venv/bin/python
PYTEST := $(PY) -m pytest -n auto

export PYTHONUTF8 := 1
# Empty: a shell that forbids compiled files would make every process compile the program anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: run test check types fast bench soak shots example dist clean

run: .venv/ready
	$(PY) -m selftune up

test: .venv/ready
	$(PYTEST) -m "not soak"

check: .venv/ready-dev
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	@$(MAKE) --no-print-directory -j2 types fast

types: .venv/ready-dev
	$(PY) -m mypy

fast: .venv/ready-dev
	$(PYTEST) -m "not browser and not slow and not soak"

# One after the other: they report ratios of one run, which a neighbour would disturb.
ifdef QUICK
BENCH_DELTA := --events 24
BENCH_LOOP := --quick
BENCH_LEDGER := --seconds 1
BENCH_HARM := --quick
BENCH_BACKTEST := --quick
BENCH_DASHBOARD := --quick
BENCH_TUNING := --quick
BENCH_GUARDED := --quick
else
BENCH_DELTA := --events 120
BENCH_TUNING := --seeds 4 --pooled
BENCH_GUARDED := --seeds 2 --cycles 100
endif

bench: .venv/ready-bench
	$(PY) -m benchmarks.delta $(BENCH_DELTA)
	$(PY) -m benchmarks.loop $(BENCH_LOOP)
	$(PY) -m benchmarks.ledger $(BENCH_LEDGER)
	$(PY) -m benchmarks.harm $(BENCH_HARM)
	$(PY) -m benchmarks.tuning $(BENCH_TUNING)
	$(PY) -m benchmarks.tuning --guarded $(BENCH_GUARDED)
	$(PY) -m benchmarks.backtest $(BENCH_BACKTEST)
	$(PY) -m benchmarks.dashboard $(BENCH_DASHBOARD)

soak: .venv/ready-dev
	$(PYTEST) -m soak

example: .venv/ready
	$(PY) -m examples.live_service.story

dist: .venv/ready-dev
	$(PY) -m build --outdir dist .

shots: .venv/ready-dev
	$(PY) -m tests.browser.shots

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# The stamps make a changed list of requirements install itself at the next target.
.venv/ready: requirements.txt pyproject.toml
	@test -x $(PY) || $(PYTHON) -m venv .venv || { \
	  echo "no virtual environment: on Debian 'apt-get install python3-venv', then again" >&2; exit 1; }
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

EXTRA := import sys, tomllib; \
  print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"][sys.argv[1]])

.venv/ready-dev .venv/ready-bench: .venv/ready-%: .venv/ready
	$(PY) -m pip install --quiet --disable-pip-version-check $$($(PY) -c '$(EXTRA)' $*)
	@touch $@
