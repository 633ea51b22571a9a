# `make` prints the verbs. Each does its own set-up: nothing has to be installed but Python 3.11 or newer.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo demo-rollout test unit test-compiled truth histories faults many cluster-test cluster cluster-down e2e check format generate bench clean

BIN := .venv/bin
ARGS ?=
# -W: the package imports the module that is run, which is meant here.
CONTROL_PLANE := $(BIN)/python -W ignore::RuntimeWarning -m trafficsim_operator.testing.controlplane --build-only
NODE := $(BIN)/python -m trafficsim_operator.testing.node

help: ## print the verbs
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## make .venv with the locked packages (uv when it is there, else pip)
	@tools/setup

demo: setup ## a demo shop and three kinds of users for about a minute, with a verdict
	@$(BIN)/trafficsim demo $(ARGS)

demo-rollout: setup ## a good runner version promoted and a bad one rolled back, drawn, in three minutes
	@$(BIN)/trafficsim demo-rollout $(ARGS)

test: setup ## what this machine can run of every level, but for long forms and the node's stories; tells what is skipped and why
	@tools/test $(ARGS)

unit: setup ## the fast levels alone: no API server
	@$(BIN)/pytest -m "not cluster and not node and not browser and not truth and not histories" $(ARGS)

test-compiled: setup ## the fast levels once more, with the runner's hot modules compiled
	@python=$$(tools/compiled) && "$$python" -P -m pytest -m "not cluster and not node and not browser and not truth and not histories" $(ARGS)

truth: setup ## the numbers against the target's own log, the long form, and scaling at length (some 35 minutes)
	@$(CONTROL_PLANE) || true
	@$(BIN)/pytest tests/truth tests/cluster/test_scaling.py tests/cluster/test_scaling_ahead.py -m truth $(ARGS)

histories: setup ## ten thousand random histories of rollouts, every fault in every phase (three minutes on two cores)
	@$(BIN)/pytest tests/operator/test_rollout_whole.py -m histories
	@$(BIN)/python -m trafficsim_operator.testing.histories $(ARGS)

faults: setup ## workers and runners killed, hostile targets, random histories; every fault at every call of the operator, in 25 minutes
	@$(CONTROL_PLANE) || true
	@$(BIN)/pytest tests/operator/test_histories.py tests/component/test_supervisor_faults.py \
		tests/component/test_engine_hostile.py tests/truth/test_truth_losses.py \
		tests/cluster/test_story.py::test_an_operator_that_is_killed_is_not_missed \
		tests/cluster/test_story.py::test_what_others_change_is_put_right \
		tests/cluster/test_story.py::test_runners_that_die_are_replaced tests/cluster/test_outages.py $(ARGS)
	@$(BIN)/pytest tests/cluster/test_api_faults.py -m faults -s -qq
	@$(BIN)/python -m trafficsim_operator.testing.faults

many: setup ## a thousand idle simulations and fifty that run, what each costs; two thousand mutated ones (some 20 minutes)
	@$(CONTROL_PLANE)
	@$(BIN)/pytest tests/cluster/test_many.py tests/cluster/test_mutants.py -m truth -rP $(ARGS)

cluster-test: setup ## the API server level alone
	@$(CONTROL_PLANE)
	@$(BIN)/pytest tests/cluster $(ARGS)

cluster: setup ## a whole Kubernetes node in a network namespace of its own, for tests and by hand (root; Linux)
	@$(NODE) up

cluster-down: setup ## end it, and remove everything it left
	@$(NODE) down

e2e: setup ## the tests on that node, with the images, installed by Helm (root; Linux)
	@$(BIN)/python -m trafficsim_operator.testing.helm
	@$(BIN)/python -m trafficsim_operator.testing.images --no-start
	@$(NODE) build
	@TRAFFICSIM_REQUIRE=node $(BIN)/pytest tests/e2e -m node $(ARGS)

image: setup ## the images of operator, runner and demo shop: built if anything changed, with size and start-up time
	@$(BIN)/python -m trafficsim_operator.testing.images $(ARGS)

check: setup ## lint, format, types, import contracts, generated files, locks
	@tools/check

format: setup ## mend what can be mended by itself
	$(BIN)/ruff check --fix --exit-zero
	$(BIN)/ruff format

generate: setup ## write the generated files: the CRD, the field reference, the picture of a rollout, the chart, the locks
	$(BIN)/python -m trafficsim_api.crd
	$(BIN)/python -m trafficsim_api.reference
	$(BIN)/python -m trafficsim_operator.rollout_diagram
	$(BIN)/python -m trafficsim_operator.chart
	tools/lock

bench: setup ## what a request and a user cost, against wrk, vegeta and Locust (about an hour)
	$(BIN)/python bench/run.py $(ARGS)

clean: ## remove .venv, caches and what was built
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
