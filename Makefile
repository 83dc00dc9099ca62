# Everything a developer, a visitor or CI does here; `make help` lists it. Each target sets up what it needs:
# a virtual environment in the checkout, made once and again only when the project's requirements change.

# The Python that the virtual environments are made from: make test PYTHON=python3.12
PYTHON ?= python3
JAVA = $(if $(JAVA_HOME),$(JAVA_HOME)/bin/)java
REQUIREMENTS = setup.cfg pyproject.toml setup.py
SOURCES = spark_partition_server tests benchmarks examples setup.py
PIP_INSTALL = -m pip install -qq --disable-pip-version-check
# The pip that comes with the older Pythons installs pyspark in a way of the past, slowly and with a warning.
NEWEST_PIP = $(PIP_INSTALL) --upgrade pip

# Questions to the machine, asked only where a recipe needs the answer.
java_major = $(shell "$(JAVA)" -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p')
java_is_new_enough = $(shell test "$(java_major)" -ge 17 2>/dev/null && echo yes)
python_is_new_enough = $(shell $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && echo yes)
python_has_venv = $(shell $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null && echo yes)
# pyspark 3.5 was released for Python up to 3.11.
suits_spark35 = import ensurepip, sys, venv; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 11))
python_for_spark35 = $(shell for python in $(PYTHON) python3.11 python3.10; do \
    "$$python" -c '$(suits_spark35)' 2>/dev/null && echo "$$python" && break; done)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: demo test test-spark4 test-spark35 lint bench clean help requirements full smoke35

demo: .venv/installed ## the search demo: Spark, servers, a client without Spark; under a minute
	@.venv/bin/python examples/search_stdlib.py

test: lint full ## everything CI runs: lint, all tests on pyspark 4, a smoke test on pyspark 3.5
	@$(if $(python_for_spark35),$(MAKE) --no-print-directory smoke35,\
	    echo "No Python 3.10 or 3.11 here, which pyspark 3.5 needs: its smoke test is left out.")

test-spark4: .venv/installed ## the Spark tests on the latest pyspark 4
	.venv/bin/python -m pytest -m spark

test-spark35: .venv35/installed ## the Spark tests on the latest pyspark 3.5
	.venv35/bin/python -m pytest -m spark

lint: .venv/installed ## ruff and mypy
	.venv/bin/python -m ruff check $(SOURCES)
	.venv/bin/python -m mypy

bench: .venv/bench ## the benchmarks: tables, JSON and plots in benchmarks/results; 10 to 20 minutes
	.venv/bin/python benchmarks/run.py

clean: ## remove everything that make and the tools made, the virtual environments included
	rm -rf .venv .venv35 build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -rf spark-warehouse metastore_db derby.log artifacts benchmarks/results
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Side by side in two processes: half the time, as each half mostly waits.
full: .venv/installed
	.venv/bin/python tests/halves.py

smoke35: .venv35/installed
	.venv35/bin/python -m pytest -m smoke

.venv/installed: $(REQUIREMENTS) | requirements
	@echo "Setting up .venv (pyspark 4 and the development tools: some 600 MB to download, once)"
	@$(PYTHON) -m venv .venv
	@.venv/bin/python $(NEWEST_PIP)
	@.venv/bin/python $(PIP_INSTALL) --editable '.[dev]' 'pyspark==4.*'
	@touch $@

.venv/bench: .venv/installed
	@.venv/bin/python $(PIP_INSTALL) --editable '.[bench]'
	@touch $@

.venv35/installed: $(REQUIREMENTS) | requirements
	@$(if $(python_for_spark35),,$(error Python 3.10 or 3.11 is needed for pyspark 3.5: install one))
	@echo "Setting up .venv35 (pyspark 3.5 and the development tools: some 400 MB to download, once)"
	@$(python_for_spark35) -m venv .venv35
	@.venv35/bin/python $(NEWEST_PIP)
	@.venv35/bin/python $(PIP_INSTALL) --editable '.[dev]' 'pyspark==3.5.*'
	@touch $@

# What only the machine's owner can install, asked for in one line and before the slow part. `error`, unlike a failing
# command, leaves no second line.
requirements:
	@$(if $(python_is_new_enough),,$(error Python 3.10 or newer is needed, and "$(PYTHON)" is not that: \
	    install it, or name it with PYTHON=))
	@$(if $(python_has_venv),,$(error Python's modules venv and ensurepip are needed, and "$(PYTHON)" lacks them: \
	    install them (on Debian and Ubuntu: apt install python3-venv)))
	@$(if $(java_is_new_enough),,$(error Java 17 or newer is needed by Spark, and "$(JAVA)" is not that: \
	    install it (on Debian and Ubuntu: apt install openjdk-17-jre-headless), or name it with JAVA_HOME))
