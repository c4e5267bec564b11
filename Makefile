# Commands for people: `make help` lists them. Everything is set up on first use and quick afterwards.

# The interpreter of the tools. 3.11 is Debian 12's own; with a newer one, as on Debian 13, a newer ansible-core
# is used (`make test PYTHON=python3.13 VENV=.venv-3.13`).
PYTHON ?= $(shell command -v python3.11 || echo python3)
VENV ?= .venv
# The lab's hosts: a Debian release, and LAB=vm for virtual machines with a kernel of their own.
LAB ?= nspawn
FLAVOUR ?= trixie
HOST ?= alpha
# Processes of one session of tests: two for the first pairs of hosts, one for all else (tests/lanes.py).
LANES ?= 3
# "yes": `make test` ends with a move between two virtual machines with Debian 13 as released.
STOCK ?=

READY := $(VENV)/.ready
LINK := .tree/ansible_collections/livemigrate/criu
LAB_PY := python3 tests/lab/lab.py
PYTEST := $(VENV)/bin/python -m pytest

export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/.tree

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-quick test-vm lint unit bench rules matrix lab-up lab-down lab-status lab-shell pins clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: setup ## two real hosts on this machine, a running container moves from one to the other
	@tests/demo/run

test: setup ## static checks, unit tests, modules, scenarios and faults on the lab (STOCK=yes: and Debian 13 as a virtual machine)
	@$(PYTEST) --numprocesses $(LANES) $(if $(filter yes,$(STOCK)),-m "not long and not vm") tests

test-quick: setup ## static checks, unit tests, and one container that moves there and back
	@$(PYTEST) --numprocesses $(LANES) tests/static tests/unit "tests/scenarios/test_molecule.py::test_scenario[counter]"

test-vm: setup ## stock Debian 12, 13 and forky as virtual machines: moves between kernels, real power cuts, WordPress
	@$(PYTEST) tests/vm -m "vm or stock"

setup: $(READY) $(LINK)/galaxy.yml ## the tools in .venv, and the checkout where Ansible finds collections
	@:

lint: setup ## the static checks alone (ruff, mypy, yamllint, ansible-lint, ansible-test sanity, the built tarball)
	@$(PYTEST) tests/static

unit: setup ## the unit tests alone
	@$(PYTEST) tests/unit

lab-up: setup ## start the lab's hosts (FLAVOUR=trixie or forky; LAB=vm for alpha and beta as virtual machines)
	@$(LAB_PY) up --flavour $(if $(filter vm,$(LAB)),vm-$(FLAVOUR) alpha beta,$(FLAVOUR))

lab-down: ## stop them; nothing stays behind
	@$(LAB_PY) down

lab-status: ## what runs, and how to reach it
	@$(LAB_PY) status

lab-shell: ## a root shell on one of them (HOST=alpha, beta or gamma)
	@$(LAB_PY) shell $(HOST)

bench: setup ## how long a small container stands still with this checkout and with others (OTHER="directories")
	@$(VENV)/bin/python -m tests.bench.compare_trees $(OTHER)

rules: setup ## docs/rules.md, docs/protocol.md, the versions in docs/support.md and the list of docs/decisions
	@$(VENV)/bin/python tests/static/make_rules.py

matrix: setup ## what the tests that ran have noted, into tests/matrix.json and the matrix in docs/support.md
	@$(VENV)/bin/python -m tests.matrix

pins: ## renew the lower part of requirements.txt after a change in its upper part
	@sed -i '/^# --- brought in/q' requirements.txt
	@$(PYTHON) -m venv --clear $(VENV)
	@$(VENV)/bin/python -m pip install -qq --disable-pip-version-check -r requirements.txt
	@$(VENV)/bin/python -m pip freeze -q -r requirements.txt | sed '1,/^## The following/d' >> requirements.txt
	@touch $(READY)

clean: ## remove .venv, .tree and .cache (not a running lab)
	rm -rf .venv* .tree .cache .ansible

# On a new Debian machine the venv module and programs that Ansible and the tests call may be missing.
$(READY): requirements.txt
	@{ command -v git && command -v ssh && command -v rsync; } >/dev/null && $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "installing git, openssh-client, rsync and python3-venv on this machine"; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
	    git openssh-client rsync python3 python3-venv >/dev/null; }
	@echo "installing the tools into $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install -qq --disable-pip-version-check -r requirements.txt
	@touch $@

# A link and not a copy, so that every edit counts at once.
$(LINK)/galaxy.yml:
	@mkdir -p $(dir $(LINK:/=))
	@ln -sfn ../../.. $(LINK)
