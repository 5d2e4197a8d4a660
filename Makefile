# Needs Python 3.11 or later and make, nothing else. `make` prints what there is.
# Kept to what GNU make 3.81 knows, because that is the one macOS ships.

PYTHON ?= python3
ARGS ?=
# Three processes share out the files of tests, in the order of tests/conftest.py; each has servers of its own, and they
# often wait.
WORKERS ?= -n 3 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install --quiet --require-hashes
# What an editable install depends on: the metadata and the links, not the code.
PROJECT := pyproject.toml src/postroom/__init__.py

# Stamps: each is made after its step succeeded, so that a second call has nothing to do and a changed
# requirements file installs again. dev.txt holds everything in demo.txt, with the same pins.
VENV := .venv/.made
DEMO := .venv/.demo-installed
DEV := .venv/.dev-installed
LOCK := .cache/lock/.installed
DOCS := .venv-docs/.installed
TOOLS := .cache/tools/.installed

define require_python
	@$(PYTHON) -c '' 2>/dev/null || { \
	  echo "error: \`$(PYTHON)\` does not run; install Python 3.11 or later, or name one with \`make PYTHON=...\`." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: Postroom needs Python 3.11 or later, and \`$(PYTHON)\` is $$($(PYTHON) -V 2>&1); name another with \`make PYTHON=...\`." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "error: \`$(PYTHON)\` lacks the venv module; install it (on Debian and Ubuntu: the package python3-venv)." >&2; exit 1; }
endef

.PHONY: help
help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s%s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo '  PYTHON=python3.13 chooses the interpreter, ARGS="-k relay" is passed to the command.'

.PHONY: demo
demo: $(DEMO) ## run the order flow with faults and dead letters, and print its ledger
	@$(BIN)/postroom demo $(ARGS)

.PHONY: test
test: $(DEV) ## run the tests, without the long fault runs
	@$(BIN)/python -m pytest -m "not slow" $(WORKERS) $(ARGS)

.PHONY: test-all
test-all: $(DEV) ## run the tests, with the long fault runs
	@$(BIN)/python -m pytest $(ARGS)

.PHONY: check
check: lint types compose-check docs test ## run everything that CI runs

.PHONY: lint
lint: format-check style imports ## check format, style and import rules

.PHONY: format-check
format-check: $(DEV) ## check the format alone
	@$(BIN)/ruff format --check .

.PHONY: style
style: $(DEV) ## check the style alone
	@$(BIN)/ruff check .

.PHONY: imports
imports: $(DEV) ## check which room imports which
	@$(BIN)/lint-imports

.PHONY: types
types: $(DEV) ## check the types
	@$(BIN)/mypy

.PHONY: compose-check
compose-check: $(DEV) ## check docker-compose.yml against the compose schema
	@$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml

.PHONY: tools
tools: $(TOOLS) ## install hadolint, kubernetes-validate and pip-audit, into .cache/tools

.PHONY: deploy-check
deploy-check: $(DEV) $(TOOLS) compose-check ## check image, compose and Kubernetes manifests
	@$(BIN)/python -m pytest -q tests/unit/test_deploy.py $(ARGS)

.PHONY: audit
audit: $(TOOLS) ## look for known weaknesses in what is pinned (asks PyPI; ARGS="-s osv" asks OSV)
	@for pins in build demo dev image lock tools; do \
	  echo "requirements/$$pins.txt"; \
	  .cache/tools/bin/pip-audit --strict --require-hashes --disable-pip --progress-spinner off \
	    --requirement requirements/$$pins.txt $(ARGS) 2> .cache/tools/audit.txt && continue; \
	  grep -q '^Traceback' .cache/tools/audit.txt || { cat .cache/tools/audit.txt >&2; exit 1; }; \
	  echo "error: the service cannot be asked, so nothing is known of these pins ($$(tail -n 1 .cache/tools/audit.txt))." >&2; \
	  exit 1; \
	done

.PHONY: format
format: $(DEV) ## format the code and repair what ruff can repair
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

.PHONY: chaos
chaos: $(DEV) ## services under fire for a minute, by a new seed (ARGS="--seed 7 --seconds 600" for a long run)
	@$(BIN)/python -m tests.fault.chaos $(ARGS)

.PHONY: bench
bench: $(DEV) ## measure speed, latency and memory, beside other relays (ARGS=--full for all of it)
	@$(BIN)/python -m benchmarks $(ARGS)

.PHONY: bench-peers
bench-peers: $(DEV) ## install the other relays that bench compares with, into .cache/peers
	@$(BIN)/python -m benchmarks.peers $(ARGS)

.PHONY: reference
reference: $(DEV) ## write docs/reference and docs/pictures from the code
	@$(BIN)/python -m docs.generate
	@$(BIN)/python docs/pictures.py

.PHONY: docs
docs: $(DOCS) ## build the documentation into build/site; a broken link is an error
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict --clean
	@.venv-docs/bin/python docs/check_site.py build/site

.PHONY: docs-serve
docs-serve: $(DOCS) ## show the documentation at localhost:8000, and build it again when a page changes
	@.venv-docs/bin/mkdocs serve $(ARGS)

.PHONY: lock
lock: $(LOCK) ## resolve requirements/*.txt again (ARGS=--upgrade takes newer versions)
	@$(COMPILE) --output-file requirements/lock.txt requirements/lock.in
	@$(COMPILE) --output-file requirements/dev.txt --extra dev pyproject.toml requirements/build.in
	@$(COMPILE) --output-file requirements/demo.txt --extra demo -c requirements/dev.txt pyproject.toml requirements/build.in
	@$(COMPILE) --output-file requirements/build.txt -c requirements/dev.txt requirements/build.in
	@$(COMPILE) --output-file requirements/docs.txt requirements/docs.in
	@$(COMPILE) --output-file requirements/tools.txt requirements/tools.in
	@$(COMPILE) --output-file requirements/image.txt --extra binary --extra confluent -c requirements/dev.txt pyproject.toml

# One set of pins for Linux and macOS and every supported Python; no address and no path of any machine.
COMPILE = .cache/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-strip-extras \
  --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" $(ARGS)

.PHONY: clean
clean: ## remove the virtual environment, the caches and the built files
	rm -rf .venv .venv-docs .cache build dist htmlcov .coverage .hypothesis .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .grimp_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# `venv --clear` also repairs what an interrupted run, or another Python, left behind.
$(VENV):
	$(require_python)
	@echo "Making .venv with $$($(PYTHON) -V)"
	@$(PYTHON) -m venv --clear .venv
	@touch $@

$(DEMO): $(VENV) requirements/demo.txt $(PROJECT)
	@echo "Installing requirements/demo.txt into .venv"
	@$(INSTALL) -r requirements/demo.txt
	@$(PIP) install --quiet --no-deps --no-build-isolation -e .
	@touch $@

$(DEV): $(VENV) requirements/dev.txt $(PROJECT)
	@echo "Installing requirements/dev.txt into .venv"
	@$(INSTALL) -r requirements/dev.txt
	@$(PIP) install --quiet --no-deps --no-build-isolation -e .
	@touch $(DEMO) $@

$(LOCK): requirements/lock.txt
	$(require_python)
	@$(PYTHON) -m venv --clear .cache/lock
	@.cache/lock/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes -r requirements/lock.txt
	@touch $@

$(DOCS): requirements/docs.txt
	$(require_python)
	@echo "Installing requirements/docs.txt into .venv-docs"
	@$(PYTHON) -m venv --clear .venv-docs
	@.venv-docs/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes -r requirements/docs.txt
	@touch $@

$(TOOLS): requirements/tools.txt
	$(require_python)
	@$(PYTHON) -m venv --clear .cache/tools
	@.cache/tools/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes -r requirements/tools.txt
	@touch $@
