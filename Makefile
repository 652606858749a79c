# Everything runs from the virtual environment that `make setup` builds, once, from pinned dependencies.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
# Two processes; one that dies fails the run at once, where a new one would wait for ever for its group.
WORKERS := -n 2 --dist loadgroup --max-worker-restart=0
# pip's own lines; shown only where it fails.
LOG := $(VENV)/setup.log

.PHONY: setup demo check quick test stress walk fuzz bench web sbom clean
.DELETE_ON_ERROR:

setup: $(READY)

$(READY): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13) and "probrt needs Python 3.11 to 3.13; name one with make PYTHON=python3.12")'
	@echo "setting up $(VENV) (once; about 3 GB, a few minutes)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@# The lock is complete: nothing is resolved, which an older pip could not do with hashes.
	@{ $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r constraints.txt && \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . ; } >$(LOG) 2>&1 || \
	  { tail -n 20 $(LOG); echo "the set-up failed; the whole log is in $(LOG)"; exit 1; }
	@touch $@

demo: setup
	@$(BIN)/python examples/digits/demo.py

# Format, lint, types and import contracts.
check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	@# mypy cannot see through an editable install's import hook: it gets a folder of links.
	@mkdir -p $(VENV)/typing/probrt
	@for package in runtime trainer exporter; do ln -sfn ../../../$$package $(VENV)/typing/probrt/$$package; done
	MYPYPATH=$(VENV)/typing $(BIN)/mypy -p probrt.runtime -p probrt.trainer -p probrt.exporter
	$(BIN)/lint-imports

# The inner loop: the checks, and the tests that need neither an export nor a process of their own.
quick: check
	$(BIN)/python -m pytest -m "quick and not stress" $(WORKERS)

test: check
	$(BIN)/python -m pytest -m "not stress" $(WORKERS)

# Ends with a table of what was tried; `make stress TABLE=docs/reliability.md` writes it into that page.
stress: setup
	$(BIN)/python -m pytest -m "stress and not walk" $(WORKERS) $(if $(TABLE),--stress-table=$(TABLE))

# Long ways of a person: every example trained in full, the walk of the README, the commands of the pages.
walk: setup
	$(BIN)/python -m pytest -m walk $(WORKERS)

# Searches for files that the runtime neither reads nor refuses; `make fuzz MINUTES=60` takes longer.
MINUTES ?= 10
fuzz: setup
	$(BIN)/python tests/fuzz.py --minutes $(MINUTES)

# Speed and memory beside peers, about 25 minutes, into docs/performance.md; `make bench QUICK=1` takes a few and writes
# nothing. TORCH names the Python of an environment with bayesian-torch (docs/performance.md).
bench: setup
	@test -d artifacts/digits || $(BIN)/python examples/digits/demo.py
	$(BIN)/python benchmarks/performance.py $(if $(QUICK),--quick,--write) $(if $(TORCH),--torch $(TORCH))
	@test -n "$(QUICK)" || $(BIN)/python benchmarks/scaling.py
	@test -n "$(QUICK)" || $(BIN)/python benchmarks/batch_sizes.py artifacts/digits

# Scores of what the command line gives, in parts that resume; a few hours. `make bench-quality QUICK=1` shows the way.
bench-quality: setup
	$(BIN)/python benchmarks/recipe.py $(if $(QUICK),--quick)

# A bill of materials of the pinned packages, for a release.
sbom: setup
	$(BIN)/python docs/write_licences.py --sbom dist/probrt.cdx.json

clean:
	rm -rf $(VENV) .cache demo build dist *.egg-info
