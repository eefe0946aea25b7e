# Everything a newcomer types. `make demo` and `make test` set up all they need.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export WUXING_TEST_DATA ?= $(abspath ../shared/data)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help install install-dev demo test check format bench torture docs system clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(VENV)/.installed  ## make .venv and install the command wuxing into it
install-dev: $(VENV)/.installed-dev  ## the same, with what the tests and checks need

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Wuxing needs Python 3.11 or newer") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[fast-cpu,chinese]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[fast-cpu,chinese,ray,dev]'
	@touch $@

demo: install  ## one model's whole life on real data, in under ten minutes on two cores
	$(BIN)/wuxing run recipes/first-model.yaml

test: install-dev system  ## the test suite
	PATH=$(abspath $(BIN)):$$PATH $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

check: install-dev  ## ruff, mypy, floors and budgets
	$(BIN)/ruff check wuxing tests benchmarks docs
	$(BIN)/ruff format --check wuxing tests benchmarks docs
	$(BIN)/mypy
	$(BIN)/pytest tests/test_house.py

format: install-dev  ## let ruff mend what it can
	$(BIN)/ruff check --fix wuxing tests benchmarks docs
	$(BIN)/ruff format wuxing tests benchmarks docs

bench: install-dev  ## measure against peers in the same run; prints ratios
	$(BIN)/python benchmarks/run.py

torture: install-dev  ## kill corpora, training and the whole recipe at random instants; attack a run; compare every byte
	$(BIN)/python tests/torture/kill_corpus.py
	$(BIN)/python tests/torture/kill_trainer.py
	$(BIN)/python tests/torture/attack_trainer.py
	$(BIN)/python tests/torture/kill_recipe.py

docs: install  ## write docs/reference and the pictures of README anew
	$(BIN)/python docs/reference.py

system: install-dev  ## the browser and promtool that the tests drive, where they are missing
	@sh tests/install_system.sh $(BIN)

clean:  ## remove everything that make made, except the store
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
