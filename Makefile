# `make help` lists the targets. The first one that needs Python makes .venv and installs into it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= runs/quickstart
MARKS ?= not slow and not hub and not browser and not clients and not originals
JOBS ?= 2

.DEFAULT_GOAL := help
.PHONY: help quickstart notebooks clients test test-all study figures address lint format

help: ## show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /: /' | awk -F': ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[notebooks,peers,search,mteb,onnx,dev]'
	@touch $@

quickstart: $(VENV)/installed ## train 2dmse and a baseline on the bundled corpus, compare their grids (a few minutes)
	$(BIN)/twodmse quickstart --out $(OUT)

notebooks: $(VENV)/installed ## run every notebook from top to bottom and clean it (TIMINGS=--timings renews measured times)
	$(BIN)/python -m twodmse.study.notebooks $(TIMINGS) notebooks/*.ipynb

test: $(VENV)/installed ## run the quick offline tests in JOBS processes (2); MARKS= runs all of them
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup -m "$(MARKS)"

clients: $(VENV)/installed ## install the tools in which the tests open exported folders (in .clients; needs Node)
	tests/clients/setup $(BIN)/python .clients

test-all: ## run every test: slow, hub, browser, clients and originals ones too
	$(MAKE) test MARKS=

study: $(VENV)/installed ## do the runs of the study that figures/data lacks (hours; needs the hub; can be stopped and goes on)
	$(BIN)/twodmse study --plan minilm --out figures/data

figures: $(VENV)/installed ## draw every picture, and write every number of the prose, from the stored tables
	$(BIN)/twodmse figures --out figures
	$(BIN)/python -m twodmse.study.report README.md figures/CLAIMS.md twodmse/resources/corpus/DATA_CARD.md

address: $(VENV)/installed ## write where the project is published into its badges and install cells (URL=https://github.com/OWNER/NAME)
	$(BIN)/python -m twodmse.study.address $(URL)

lint: $(VENV)/installed ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy twodmse

format: $(VENV)/installed ## mend style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
