# Everything runs in .venv, which is made and filled when it is absent or out of date.
PYTHON ?= $(shell python3.11 -c '' 2>/dev/null && echo python3.11 || echo python3)
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: demo docs docs-examples test browser slow robust margins lowest container lint format typecheck bench coverage dist install clean
.DEFAULT_GOAL := test

demo: $(INSTALLED) ## the main job on real text, the paper's figures, and every term and bound of its simulation
	mkdir -p demo
	$(BIN)/rbpp assess --demo --output demo/assess.nc --report demo/report.html --rows demo/rows.parquet
	$(BIN)/python examples/paper_figures.py demo --worlds 8
	$(BIN)/rbpp bounds gaussian_mixture --worlds 8 --output demo/bounds.nc --figures demo

# A thread a worker: two workers of two threads each would wait for one another on two cores.
test: $(INSTALLED) ## what every change must pass
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

browser: ## Chromium, in which the tests open the reports, in an environment of its own
	test -x .venv-browser/bin/python || $(PYTHON) -m venv .venv-browser
	.venv-browser/bin/python -m pip install --quiet --disable-pip-version-check PyQt6-WebEngine==6.11.0

slow: $(INSTALLED) ## the tests that take over a minute
	$(BIN)/python -m pytest -m slow

robust: $(INSTALLED) ## random numbers on four kinds of processor, damaged files, kills, full disks
	$(BIN)/python tests/robust.py

margins: $(INSTALLED) ## how far those tests stay from their limits, over 20 seeds
	$(BIN)/python tests/robust.py --margins

lowest: ## the tests with the lower bounds of pyproject.toml, in an environment of their own
	test -x .venv-lowest/bin/python || $(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet -c constraints-lowest.txt -e '.[dev]'
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 .venv-lowest/bin/python -m pytest -W ignore -n auto --maxprocesses 4 --dist loadfile

container: ## InferenceData under ArviZ 1.x and without torch: PYTHON is 3.12 or later
	test -x .venv-newer/bin/python || $(PYTHON) -m venv .venv-newer
	.venv-newer/bin/python -m pip install --quiet --disable-pip-version-check \
		'arviz>=1,<2' h5netcdf h5py hypothesis matplotlib numpy pytest rich xarray
	PYTHONPATH=. .venv-newer/bin/python -m pytest \
		tests/test_inference_data.py rbpp/inference_data.py rbpp/variables.py rbpp/display.py \
		rbpp/wording.py

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

typecheck: $(INSTALLED)
	$(BIN)/mypy

docs: $(INSTALLED) ## the site, in docs/_build: warnings are errors, links resolve, no network
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	rm -rf docs/_build
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going docs docs/_build
	$(BIN)/python docs/tools/links.py docs/_build

docs-examples: $(INSTALLED) ## run every command of the pages, and write what it prints into them
	nice $(BIN)/python docs/tools/pages.py

bench: $(INSTALLED) ## side by side with the peers; see benchmarks/README.md
	$(BIN)/python benchmarks/run.py

coverage: $(INSTALLED) ## how often intervals of bounds cover what is known: half an hour of a core; writes docs/measurements/coverage.md
	$(BIN)/python benchmarks/coverage.py

dist: $(INSTALLED) ## the wheel and the source archive, in dist/
	$(BIN)/python -m build

install: $(INSTALLED)

# The stamp is older than what it was made from as soon as either changes.
$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv .venv-browser .venv-lowest .venv-newer demo build dist docs/_build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
