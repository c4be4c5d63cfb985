# On a fresh Debian 12, as root:    make demo    make test
# Each target sets up by itself what it needs; a second call finds it done. Run a part of a tier with
# `make test-container ARGS='-k carry'`; variables given to make (`make demo STRATEGY=live`) reach the
# programs in their environment.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PY := .venv/bin/python
TIERS := unit bus container vm
VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"$$/\1/p' issu_systemd/__init__.py)
DEB := dist/issu-systemd_$(VERSION)_all.deb
PACKAGED := issu_systemd units dropins data docs debian pyproject.toml README.md NEWS.md LICENSE
SOURCES := $(shell find $(PACKAGED) -name __pycache__ -prune -o -print 2>/dev/null)

.PHONY: help setup packages packages-vm deb demo bench bench-vm soak fault-matrix test test-long test-newest \
	lint clean $(TIERS:%=test-%)

help:
	@echo 'make demo     upgrade a running system before your eyes'
	echo 'make test     every tier; one alone: $(TIERS:%=make test-%)'
	echo 'make test-long   what takes too long for every run: more of the watchdog, in a virtual machine'
	echo 'make bench    measure outages in containers; make bench-vm: packets, in a virtual machine'
	echo 'make soak     a hundred upgrades in a container and ten in a virtual machine, under load'
	echo 'make fault-matrix   every fault at every place of an upgrade (hours; STRATEGY=, CELLS=)'
	echo 'make deb      $(DEB)'
	echo 'make lint     the linters alone'
	echo 'make clean    remove what make made in this tree'

setup: packages .venv/.stamp

packages:
	@tests/setup.sh build unit bus container

packages-vm: packages
	@tests/setup.sh vm

.venv/.stamp: tests/requirements.txt | packages
	@echo 'setup: making .venv'
	/usr/bin/python3 -m venv --clear --system-site-packages .venv
	$(PY) -m pip install --quiet --quiet --disable-pip-version-check --requirement tests/requirements.txt
	touch $@

deb: $(DEB)

# Built from a copy, so that the build leaves nothing in the checkout and sees nothing but sources, and
# with Debian's own Python, whatever other one stands first on PATH.
$(DEB): $(SOURCES) Makefile | packages
	@tree=$$(mktemp -d)
	trap 'rm -rf "$$tree"' EXIT
	mkdir -p dist "$$tree/issu-systemd"
	tar -c --exclude=__pycache__ $(PACKAGED) | tar -x -C "$$tree/issu-systemd"
	echo 'building $@ (dist/build.log)'
	(cd "$$tree/issu-systemd" && PATH=/usr/sbin:/usr/bin:/sbin:/bin dpkg-buildpackage -b -us -uc) \
		>dist/build.log 2>&1 || { cat dist/build.log; exit 1; }
	rm -f dist/*.deb
	cp "$$tree"/issu-systemd_$(VERSION)_all.deb $@

demo: setup $(DEB)
	@$(PY) -m tests.rig.demo

bench: setup $(DEB)
	@$(PY) -m tests.rig.bench

bench-vm: setup packages-vm $(DEB)
	@$(PY) -m tests.vm.bench

# Every run prints its seed: `make soak SEED=1` repeats one. SOAK= and SOAK_VM= are how many upgrades.
soak: export SOAK ?= 100
soak: export SOAK_VM ?= 10
soak: setup packages-vm $(DEB)
	@$(PY) -m pytest --capture=no tests/container/test_soak.py tests/vm/test_soak.py $(ARGS)

fault-matrix: setup packages-vm $(DEB)
	@$(PY) -m tests.vm.matrix

# Tiers run from the quickest to the slowest, and the first that fails is the last that runs.
test:
	@times='' failed=''
	for tier in $(TIERS); do
		printf '\n--- %s ---\n' "$$tier"
		start=$$SECONDS
		$(MAKE) --no-print-directory "test-$$tier" || failed=$$tier
		times+=$$(printf '%-10s %5d s  %s' "$$tier" $$((SECONDS - start)) "$${failed:+FAILED}")$$'\n'
		[ -z "$$failed" ] || break
	done
	printf '\n%s' "$$times"
	[ -z "$$failed" ]

test-unit: setup
	@$(PY) -m pytest tests/unit $(ARGS)

test-bus: setup
	@$(PY) -m pytest tests/bus $(ARGS)

# Two files at a time, for a machine under test mostly waits; a test marked `alone` is by itself all
# the same. `ARGS=--numprocesses=0` is one at a time.
test-container: setup $(DEB)
	@$(PY) -m pytest --numprocesses=2 --dist=loadfile tests/rig tests/container $(ARGS)

# Debian's newest systemd, another thing every day: not one of the tiers.
test-newest: setup $(DEB)
	@$(PY) -m pytest tests/newest $(ARGS)

test-vm: setup packages-vm $(DEB)
	@$(PY) -m pytest --numprocesses=2 --dist=loadfile -m 'not long' tests/vm $(ARGS)

# What takes too long for every run.
test-long: setup packages-vm $(DEB)
	@$(PY) -m pytest -m long tests/vm $(ARGS)

lint: setup
	@$(PY) -m pytest tests/unit/test_linters.py $(ARGS)

clean:
	@rm -rf .venv dist .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
