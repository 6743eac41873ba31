# A fresh clone needs Python 3.11, 3.12 or 3.13, pip and make; every target makes .venv from the lock first, once.
# The lock is for Linux on x86-64 and aarch64 and for macOS 14 on arm64. It installs in about a minute, and .venv takes 7 GB.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
VENV ?= .venv
RUN := $(VENV)/bin/python
UV := $(VENV)/bin/uv
STAMP := $(VENV)/.installed
EXTRAS := --extra heic --extra faces --extra text --extra codes --extra nudenet --extra review --extra plots --extra evaluation --extra marks --extra explain --extra provenance --extra train --extra torchcodec --extra dev
LOCK_FLAGS := --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate --quiet
LOCK_PYTHONS := 3.11 3.12 3.13
LOCK_PLATFORMS := x86_64-manylinux_2_28 aarch64-manylinux_2_28 aarch64-apple-darwin
# Where pyenv keeps its Pythons: its shims name all of them and run only one.
OTHER_PATH := $(subst $(eval ) ,:,$(wildcard $(HOME)/.pyenv/versions/*/bin)):$(PATH)
# Rooms without torch: seconds each.
OTHER_TESTS := tests/unit/config tests/unit/policy tests/unit/results tests/unit/planning

# Two processes with one thread each; tests of a file stay together, as their fixtures do. Clusters are apart: each takes
# all cores.
SIDE_BY_SIDE := -n 2 --dist loadfile

# A crash in native code names the thread, at the interpreter's exit too, where pytest has switched its own handler off.
export PYTHONFAULTHANDLER := 1

.DEFAULT_GOAL := help
.PHONY: help demo where test test-long test-pythons check roles cover bench docs golden fmt lock clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(STAMP)  ## moderate a small set made from pictures that ship in packages, and show the verdicts
	$(RUN) -m examples.demo

where: $(STAMP)
	@$(RUN) -c 'import platform as p; print(p.python_implementation(), p.python_version(), "on", p.system(), p.machine())'

test: where check  ## check, then the tests (about 10 minutes on two cores)
	OMP_NUM_THREADS=1 $(RUN) -m pytest $(SIDE_BY_SIDE) -m "not long" tests/unit tests/contract $(PYTEST_ARGS)
	$(RUN) -m pytest -m "not long" tests/golden tests/gpu tests/integration $(PYTEST_ARGS)

test-long: $(STAMP)  ## the tests on clusters, on S3 and with trained models (about 16)
	$(RUN) -m pytest -m long $(PYTEST_ARGS)

test-pythons: $(STAMP)  ## some unit tests on the other Pythons of the lock, where this machine has them
	@for version in $(filter-out $(shell $(RUN) -c 'import sys; print("%d.%d" % sys.version_info[:2])'),$(LOCK_PYTHONS)); do \
		python=$$(PATH="$(OTHER_PATH)" $(UV) python find --no-python-downloads --system $$version) \
			|| { echo "no Python $$version on this machine"; continue; }; \
		$(MAKE) --no-print-directory PYTHON=$$python VENV=$(VENV)-$$version where \
			&& $(VENV)-$$version/bin/python -m pytest -q $(OTHER_TESTS) || exit 1; \
	done

check: $(STAMP)  ## lint, format, types, layers, the limits of the house
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(RUN) tools/check_house.py

roles: $(STAMP)  ## play the five roles that use it; transcripts and pages in build/roles/ (about 10 minutes)
	$(RUN) -m tools.roles

cover: $(STAMP)  ## lines and branches that unit and contract tests run: the total, and the ten files with the least
	OMP_NUM_THREADS=1 $(RUN) -m pytest -q $(SIDE_BY_SIDE) tests/unit tests/contract -m "not long" \
		--cov --cov-report=json:build/coverage.json $(PYTEST_ARGS)
	$(RUN) tools/least_covered.py build/coverage.json

bench: $(STAMP)  ## what README shows of speed, beside other pipelines, measured anew and written there (half an hour)
	$(RUN) -m benchmarks

docs: $(STAMP)  ## the documentation as a site, build/site/index.html: no network, neither now nor when it is read
	$(RUN) -m tools.build_docs
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --quiet

golden: $(STAMP)  ## write the golden verdicts anew; the difference belongs into the commit message
	$(RUN) tests/golden/regenerate.py

fmt: $(STAMP)  ## mend lint and format where a machine can
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

lock: $(STAMP)  ## resolve pyproject.toml again, keeping the versions that still fit
	$(UV) pip compile pyproject.toml $(EXTRAS) $(LOCK_FLAGS) -o requirements.lock
	sed -n 's/^reference = \["\(.*\)"\]$$/\1/p' pyproject.toml \
		| $(UV) pip compile - --no-deps $(LOCK_FLAGS) -o requirements-reference.lock
	echo hatchling | $(UV) pip compile pyproject.toml - --extra heic --extra faces --extra text --extra codes --extra evaluation --extra torchcodec \
		-c requirements.lock $(LOCK_FLAGS) -o cluster/requirements.lock
	@for platform in $(LOCK_PLATFORMS); do for version in $(LOCK_PYTHONS); do \
		MACOSX_DEPLOYMENT_TARGET=14.0 $(UV) pip install --quiet --dry-run --target build/none --no-deps --require-hashes \
			--python-platform $$platform --python-version $$version --only-binary :all: --no-binary pyvips --no-binary font-roboto \
			-r requirements.lock && echo "wheels for $$platform, Python $$version" || exit 1; \
	done; done

clean:  ## remove what was made here, but not .venv
	rm -rf demo-data demo-out build dist .mypy_cache .ruff_cache .import_linter_cache .hypothesis

# uv is quick, but knows nothing of an index that only pip was told of: then pip installs the same files.
# No dependencies: the lock names all, less those that pyproject.toml overrides.
# No build isolation: what builds the package is in the lock too, so that nothing outside it is fetched.
$(STAMP): requirements.lock requirements-uv.lock requirements-reference.lock pyproject.toml
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -c 'import sys; sys.exit("Python 3.11 or later is needed") if sys.version_info < (3, 11) else None'
	$(RUN) -m pip --version >/dev/null 2>&1 || $(RUN) -m ensurepip
	test -x $(UV) || $(RUN) -m pip install --quiet --require-hashes -r requirements-uv.lock
	$(UV) pip install --python $(RUN) --no-deps --require-hashes -r requirements.lock \
		|| $(RUN) -m pip install --no-deps --require-hashes -r requirements.lock
	$(UV) pip install --python $(RUN) --no-deps --no-build-isolation -e .
	$(UV) pip install --python $(RUN) --no-deps --require-hashes -r requirements-reference.lock \
		|| echo 'No C++ compiler, so no reference for PDQ: its tests skip.'
	touch $@
