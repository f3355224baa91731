# Each target sets up what it needs, from a fresh clone on Debian 12.
#
#   make check   format, lint, types, quick tests; no root, under a minute
#   make test    all of that, integration, and the end-to-end test on real firmware (root or sudo)
#   make demo    one bare machine, from power-on to a finished job (root or sudo); KEEP=1 leaves it up
#   make image   the Debian image that the demo and the tests boot, cached in .cache/srv
#   make firmware  other generations of iPXE and an arm64 kernel for the tests, in .cache/firmware
#   make binary  dist/appliance, one executable with everything inside
#   make deb     dist/appliance_*.deb, a Debian package of the same files
#   make bench   the benchmarks

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
# What goes into the executable: a Python with a shared library, which Debian's own has.
BUILD_PYTHON ?= /usr/bin/python3
BUILD_VENV := .cache/binary/venv
SUDO := $(if $(filter 0,$(shell id -u)),,sudo --preserve-env=SIM_SEED,SIM_RUNS,CRASH_SEED,CRASH_ROUNDS,FUZZ_SEED,FUZZ_TIMES,LKP_TESTS,UPGRADE_FROM)
SRV := $(CURDIR)/.cache/srv
KEEP ?=

.PHONY: setup check test demo image firmware binary deb bench packages venv
.DELETE_ON_ERROR:

setup: packages venv

packages:
	@sh release/packages.sh

venv: $(VENV)/.made

# python3-venv is a package of its own on Debian; without it a venv has no pip.
$(VENV)/.made: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || sh release/packages.sh
	@echo "making $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

check: venv
	@$(VENV)/bin/ruff format --check --quiet . || { $(VENV)/bin/ruff format --diff .; exit 1; }
	@$(VENV)/bin/ruff check --quiet .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/pytest -q -m 'not root and not image and not slow'

test: packages check image firmware
	@$(SUDO) $(VENV)/bin/pytest -q -m 'root or image or slow'

# Built again only when what it is made from has changed: `image build` knows.
image: packages venv
	@$(SUDO) $(PY) -m lab.cached_image $(SRV)

firmware: packages
	@sh release/firmware.sh .cache/firmware

binary: packages $(BUILD_VENV)/.made
	@PYTHONPATH=$(CURDIR) $(BUILD_VENV)/bin/python -m release.binary $(TARGET) $(NAME)

# Of the same files.
deb: binary
	@PYTHONPATH=$(CURDIR) $(BUILD_VENV)/bin/python -m release.debian_package $(DEB)

$(BUILD_VENV)/.made: requirements.lock requirements-binary.lock
	@test -x $(BUILD_PYTHON) || sh release/packages.sh
	@$(BUILD_PYTHON) -m venv $(BUILD_VENV)
	@$(BUILD_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes \
	    -r requirements.lock -r requirements-binary.lock
	@touch $@

demo: packages venv image
	@$(SUDO) $(PY) -m lab.demo $(if $(KEEP),--keep)

bench: packages venv
	@$(SUDO) $(PY) -m bench
