# Every target installs what it needs and says what it does. Start with `make demo`.

PYTHON ?= $(shell command -v /usr/bin/python3 || command -v python3)
BIN    := .venv/bin
# Tests wait for half of their time, so two cores are busy with three at a time.
JOBS   ?= 3
# Files of tests in their order, the quick ones of tests/unit last: no worker is left with a long file at the end.
SPREAD  = -n $(JOBS) --dist loadfile --no-loadscope-reorder
STAMP  := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test unit check generate doctor lock bench chaos fuzz mutants cluster images scan clean

help:  ## Show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP)  ## Make the virtual environment, with every package pinned by hash

$(STAMP): requirements.lock pyproject.toml scripts/setup
	@scripts/setup "$(PYTHON)"
	@touch $@

demo: $(STAMP)  ## Run real plugins, break them, watch them come back; tear everything down
	@$(BIN)/python scripts/demo.py

test: $(STAMP) .tools/bin/helm  ## Run every test this machine can host (JOBS=1 for one at a time)
	@$(BIN)/pytest $(SPREAD) $(ARGS)

unit: JOBS := 2
unit: $(STAMP)  ## Run the tests that need nothing but Python
	@$(BIN)/pytest $(SPREAD) tests/unit $(ARGS)

check: $(STAMP)  ## Lint, types, import rules, generated files
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python scripts/generate --check

generate: $(STAMP)  ## Write the CRD and the manifest reference from the models
	@$(BIN)/python scripts/generate

doctor: $(STAMP)  ## Examine this host with crucible doctor, and write what it found into the README's table
	@$(BIN)/python scripts/doctor-table $(ARGS)

lock:  ## Resolve the dependencies anew
	@scripts/lock --upgrade

bench: $(STAMP)  ## Measure; prints a table and writes build/bench.json (ONLY=name for one)
	@$(BIN)/python tests/bench/run.py $(if $(ONLY),--only $(ONLY))

chaos: $(STAMP)  ## Break everything at random and count what is not as it was (RUNS=200 SEED=7 SOAK=30m, RESUME=1 to go on); writes build/chaos.json
	@$(BIN)/python tests/chaos/run.py --runs $(or $(RUNS),20) --seed $(or $(SEED),7) --soak $(or $(SOAK),1m) $(if $(RESUME),--resume) $(ARGS)

fuzz: $(STAMP)  ## Run the property tests and the tests that kill for longer
	@CRUCIBLE_LONG=1 $(BIN)/pytest tests/unit tests/controlplane -m "not slow" $(ARGS)
	@CRUCIBLE_LONG=1 $(BIN)/pytest tests/cluster/test_killed.py $(ARGS)
	@CRUCIBLE_LONG=1 $(BIN)/pytest tests/chaos/test_controller_killed.py tests/runtimes/test_process_recovery.py $(ARGS)

mutants: $(STAMP)  ## Change the core in every way mutmut knows; print how many changes the tests notice
	@scripts/mutants

.tools/bin/helm: $(STAMP) scripts/tools
	@$(BIN)/python scripts/tools

cluster: $(STAMP) .tools/bin/helm  ## Run the tests of the operator on the cluster that KUBECONFIG names too (docs/kubernetes.md)
	@CRUCIBLE_CLUSTER=1 $(BIN)/pytest tests/cluster $(ARGS)

images: $(STAMP)  ## Make the plugins' images without a registry (ARGS="--load python" for some); INTO=docker, kind, kind:CLUSTER or containerd hands all, and the operator's, to its nodes
	@$(BIN)/python scripts/images $(if $(INTO),--into $(INTO)) $(ARGS)

scan: .tools/checkov/.ready .tools/bin/helm  ## Let a public scanner look at the chart, the pods of plugins and the Dockerfiles
	@$(BIN)/pytest tests/charts/test_scan.py $(ARGS)

.tools/checkov/.ready: $(STAMP) scripts/scanner.lock
	@$(PYTHON) -m venv --clear .tools/checkov
	@.tools/checkov/bin/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r scripts/scanner.lock
	@touch $@

clean:  ## Remove everything made here
	@rm -rf .venv .tools build dist mutants .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
