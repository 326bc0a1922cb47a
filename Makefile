# Everything that is done with Einsight's sources. `make run` and `make test` need only Python 3.11 and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
comma := ,

# The extras that the tests install. `make test EXTRAS=test,gpu` also runs the kernels in Triton's interpreter.
EXTRAS := test
# Found by the path of this folder: a folder `einsight` beside a user's script does not hide the package then.
EDITABLE := --config-settings editable_mode=compat
# Processes of the test run: one for each core, at most eight.
JOBS := auto

.PHONY: run test lint slow benchmark docs outputs clean

run: $(VENV)/.installed
	$(BIN)/einsight run docs/examples/fusemax-bert.yaml --out out/fusemax-bert

test: lint
	$(BIN)/python -m pytest -n $(JOBS) --maxprocesses 8

lint: $(VENV)/.installed-$(subst $(comma),-,$(EXTRAS))
	$(BIN)/ruff check .
	$(BIN)/mypy

slow: $(VENV)/.installed-$(subst $(comma),-,$(EXTRAS))
	$(BIN)/python -m pytest -m slow

benchmark: $(VENV)/.installed-$(subst $(comma),-,$(EXTRAS))
	$(BIN)/python -m pytest -m benchmark tests/benchmarks

# The documentation, from disk: site/index.html. A broken link fails.
docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "site/index.html"

# Run every block of README.md and docs/*.md and write what it prints into the page.
outputs: $(VENV)/.installed-$(subst $(comma),-,$(EXTRAS))
	$(BIN)/python -m tests.docs.blocks

clean:
	rm -rf $(VENV) build out site *.egg-info

# One stamp for each set of extras: the environment is made once, and completed when pyproject.toml changes.
$(VENV)/.installed-%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet $(EDITABLE) --editable '.[$(subst -,$(comma),$*)]'
	touch $@

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet $(EDITABLE) --editable .
	touch $@

$(BIN)/python:
	@echo "setting up $(VENV): a minute or two, once"
	$(PYTHON) -m venv $(VENV)
