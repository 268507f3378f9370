# Everything starts here; `make` alone lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ADDRESS ?= 127.0.0.1:10841
DEMO_HOST := tests/hosts/gpu-node-sick

.DEFAULT_GOAL := help
.PHONY: help run demo test check generate bench lock clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: $(VENV)/run.stamp ## install what is locked and run the exporter on http://127.0.0.1:10841/
	@exec $(BIN)/nodehealth serve --web.listen-address=$(ADDRESS)

demo: $(VENV)/run.stamp ## the same on a recorded GPU node with faults: a full page without hardware
	@rm -rf .demo
	@exec $(BIN)/nodehealth serve --web.listen-address=$(ADDRESS) --path.rootfs=$(DEMO_HOST) --state.path=.demo

test: $(VENV)/dev.stamp ## install what is locked and run the whole test suite
	@$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/dev.stamp ## format, lint, types, layers, generated files
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@sh tools/check-words

generate: $(VENV)/dev.stamp ## write the generated files again (golden pages of the recorded hosts)
	@$(BIN)/python -m pytest tests/test_hosts.py -q --golden

bench: $(VENV)/dev.stamp ## measure memory, CPU, latency and throughput on this machine
	@$(BIN)/python -m tools.bench

lock: $(VENV)/dev.stamp ## resolve the dependencies again and write requirements/*.txt
	@$(BIN)/pip -q install pip-tools
	@for each in build run dev; do $(BIN)/pip-compile -q --upgrade --generate-hashes --no-emit-index-url \
	  --no-emit-find-links --strip-extras --allow-unsafe --no-header -o requirements/$$each.txt requirements/$$each.in; done

clean: ## remove everything that was built
	@rm -rf $(VENV) .demo .bench build dist exporter/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "nodehealth needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "this Python cannot make a virtual environment; on Debian: apt-get install python3-venv"; exit 1; }

$(VENV)/run.stamp: $(VENV)/pyvenv.cfg requirements/build.txt requirements/run.txt pyproject.toml
	@echo "installing locked dependencies into $(VENV)"
	@$(BIN)/pip -q --disable-pip-version-check install --require-hashes -r requirements/build.txt
	@$(BIN)/pip -q --disable-pip-version-check install --require-hashes -r requirements/run.txt
	@$(BIN)/pip -q --disable-pip-version-check install --no-build-isolation --no-deps -e .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp requirements/dev.txt
	@echo "installing locked development dependencies into $(VENV)"
	@$(BIN)/pip -q --disable-pip-version-check install --require-hashes -r requirements/dev.txt
	@touch $@
