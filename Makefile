# make help lists what there is. Everything starts from scripts/setup, which does nothing when nothing is missing.
.DEFAULT_GOAL := help
SHELL := /bin/bash
BIN := .venv/bin
# Some tools look for Ansible's programs there.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
PYTEST_ARGS ?=
BENCH ?=

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z -]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r target text; do \
	    printf '  make %-26s %s\n' "$$target" "$$text"; done

.PHONY: setup setup-play
setup: ## system packages, .venv, .venv-oldest, Consul: only what is missing
	@scripts/setup

setup-play: # what a lab needs: .venv alone
	@scripts/setup --play

.PHONY: setup-tools
setup-tools: ## also what only test-all and releases need: .venv-tools, .venv-eda, Java
	@scripts/setup --tools

# --- see it ---

.PHONY: demo lab lab-down
demo: setup-play ## roll version 2 over five VMs under load, then a broken version 3 and its rollback
	@$(BIN)/python -m lab demo

lab: setup-play ## start the lab, to play with
	@$(BIN)/python -m lab up

lab-down: ## stop it
	@$(BIN)/python -m lab down

# --- check it ---

.PHONY: test test-all test-devel lint sanity unit simulation integration rollout molecule bench
test: setup ## every check, the newest versions whole, a cross-section of the oldest (.ci/run runs this)
	@scripts/test

test-all: setup-tools ## also the slow tests and the oldest versions whole
	@scripts/test --all

test-devel: ## what of ansible-core's inside is used, and rollouts, with its next version (may fail: it tells what changes)
	@scripts/setup --devel
	@.venv-devel/bin/pytest tests/unit/plugins/plugin_utils tests/rollout/test_rollout.py tests/rollout/test_failures.py \
	    tests/rollout/test_refusals.py -m "not slow" $(PYTEST_ARGS)

lint: setup ## ruff, mypy, yamllint, ansible-lint, changelog fragments
	@scripts/lint

sanity: setup ## ansible-test sanity, of the built collection
	@scripts/sanity

unit simulation integration rollout: setup ## one folder of tests; PYTEST_ARGS='-k lock -x'
	@$(BIN)/pytest tests/$@ $(PYTEST_ARGS)

molecule: setup ## a rollout in the lab, driven by molecule
	@scripts/molecule

bench: setup ## figures, side by side with the alternatives; BENCH='ssh waiting' for some of them
	@$(BIN)/python -m bench $(BENCH)

# --- publish it ---

.PHONY: build install-built docs galaxy-import changelog release
build: setup ## the artifact, in build/
	@scripts/docsite
	@$(BIN)/ansible-galaxy collection build --force --output-path build

install-built: setup ## build and install it into the cache; prints the collections path
	@scripts/install-built

docs: setup-tools ## check the markup of all plugins and roles, and make HTML of it in build/docs
	@scripts/lint docs
	@scripts/docs

galaxy-import: setup-tools ## what Galaxy does with an uploaded artifact; fails at a warning
	@scripts/galaxy-import

changelog: setup ## CHANGELOG.md and changelogs/changelog.yaml from the fragments, for galaxy.yml's version
	@antsibull-changelog release

release: setup-tools ## check, write the changelog, build; then says what is left to do by hand
	@scripts/release

.PHONY: clean
clean: ## caches and builds; not the virtual environments, not Consul
	@rm -rf .cache build .ansible .mypy_cache .ruff_cache .pytest_cache .hypothesis collections
	@find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
