# Two commands on a fresh machine: `make demo` and `make test`. Only Python 3.10 or later is needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test test-slow test-lowest lint clean

demo: $(INSTALLED)
	$(BIN)/python data_preprocess/demo.py
	$(BIN)/python data_preprocess/amazon.py --dataset demo
	$(BIN)/python run_expid.py --expid DIN_MISS_demo

test: $(INSTALLED) lint
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -m slow

test-lowest: $(INSTALLED)
	$(BIN)/python tests/lowest_versions.py

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# torch first and by itself: its CPU build must be in place before anything asks for a newer one
$(INSTALLED): requirements.txt setup.py
	$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or later is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 10) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $$(grep "^torch==" requirements.txt)
	$(BIN)/python -m pip install --quiet -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

clean:
	rm -rf $(VENV) data checkpoints
