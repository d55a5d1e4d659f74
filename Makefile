# Everything a fresh machine needs is set up by the targets themselves: Python >= 3.10 and make are enough.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
WORKERS ?= -n auto --dist loadgroup

.PHONY: help demo test check commands docs audit package benchmark clean

help:
	@echo "make demo    two clouds, one Rucio: upload, rule, transfer, download, deletion (about a minute)"
	@echo "make test    style, types and all tests; real servers are used where they are found; PYTEST=tests/unit for a part"
	@echo "make check   style and types only"
	@echo "make commands  the page docs/commands.md, from the program"
	@echo "make docs    the documentation site, into site/"
	@echo "make audit   known weaknesses of what is installed (needs pypi.org)"
	@echo "make package the wheel, into dist/, and a look into it"
	@echo "make benchmark  speed beside curl and Rucio's own, on real Reva sites (about twenty minutes)"
	@echo "make clean   remove what the others made"

# The stamp is newer than pyproject.toml when the environment fits it.
$(VENV)/.ready: pyproject.toml setup.py
	$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or newer is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 10) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[server,sandbox,postgresql,test]'
	touch $@

demo: $(VENV)/.ready
	$(BIN)/rucio-cs3 demo $(DEMO)

# In several processes, because tests wait most of the time; `WORKERS=` for one.
test: check
	$(BIN)/python -m pytest $(WORKERS) $(PYTEST)

check: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

commands: $(VENV)/.ready
	$(BIN)/python .ci/commands.py

# An environment of its own: mkdocs-material needs a newer requests than Rucio allows.
docs:
	$(PYTHON) -m venv $(VENV)-docs
	$(VENV)-docs/bin/python -m pip install --quiet 'mkdocs-material>=9.5' 'mkdocstrings[python]>=0.26' 'ruff>=0.6'
	$(VENV)-docs/bin/mkdocs build --strict

# An environment of its own, so that the audit is of none of its own needs.
audit: $(VENV)/.ready
	$(BIN)/python -m pip check
	$(PYTHON) -m venv $(VENV)-audit
	if $(VENV)-audit/bin/python -m pip install --quiet 'pip-audit>=2.7'; then \
		$(BIN)/python .ci/audit.py $(VENV)-audit/bin/pip-audit $(BIN)/python; \
	else echo "Nothing was audited: pip-audit could not be installed"; fi

package: $(VENV)/.ready
	$(BIN)/python .ci/package.py dist

benchmark: $(VENV)/.ready
	$(BIN)/python benchmarks/data_path.py
	$(BIN)/python benchmarks/copies.py
	$(BIN)/python benchmarks/conveyor.py
	$(BIN)/python benchmarks/ticks.py

clean:
	rm -rf $(VENV) $(VENV)-docs $(VENV)-audit $(VENV)-cs3client build dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
