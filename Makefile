# make run    the dashboard and the loop (with a simulated system when there are no metrics yet)
# make test   every test but the soak, in parallel
# make check  format, lint, types and the fast tests
# make soak   days of the loop on simulated systems; minutes of work
#
# PYTHON=python3.12 make test   uses another interpreter for a new .venv (3.11 or newer).

PYTHON ?= python3
PY := .venv/bin/python
PYTEST := $(PY) -m pytest -n auto

export PYTHONUTF8 := 1

.PHONY: run test check soak clean

run: .venv/ready
	$(PY) -m selftune up

test: .venv/ready
	$(PYTEST) -m "not soak"

check: .venv/ready-dev
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(PYTEST) -m "not browser and not slow and not soak"

soak: .venv/ready-dev
	$(PYTEST) -m soak

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# The stamps make a changed list of requirements install itself at the next target.
.venv/ready: requirements.txt pyproject.toml
	@test -x $(PY) || $(PYTHON) -m venv .venv || { \
	  echo "no virtual environment: on Debian 'apt-get install python3-venv', then again" >&2; exit 1; }
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

DEV := import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["dev"])

.venv/ready-dev: .venv/ready
	$(PY) -m pip install --quiet --disable-pip-version-check $$($(PY) -c '$(DEV)')
	@touch $@
