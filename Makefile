# The first `make demo` or `make test` makes the virtual environment and installs into it.
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
PYTHON ?= python3 python3.11 python3.12 python3.13
# Two workers: the models of the tests are too small to gain from torch's threads, so each worker gets one (conftest.py) and
# two notebooks run side by side. Every worker imports torch for itself, so more of them pay only where there are more cores.
JOBS   ?= 2
FLAGS  ?=
# smalldocs is a Python package and installs with the rest; quarto is a program of its own. Both make the site of _quarto.yml
BUILDER ?= smalldocs
export HF_HUB_OFFLINE ?= 1

.PHONY: help install demo test notebooks readme docs clean

help:
	@echo "make demo       train, answer and score on the embedded sample; no network, no GPU"
	@echo "make test       test every notebook cell and tests/ (JOBS=0: in one process; FLAGS='slow cuda': these cells as well)"
	@echo "make notebooks  export, run every notebook and save its outputs, clean"
	@echo "make readme     README.md from nbs/index.ipynb, its picture, the page of the commands, addresses from settings.ini"
	@echo "make docs       the documentation site in _docs, every link and anchor checked (BUILDER=quarto: as it is published)"
	@echo "make clean      remove what was built; the environment $(VENV) stays"

$(READY): settings.ini setup.py pyproject.toml constraints.txt
	@python=; for p in $(PYTHON); do \
	  if $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$p; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "Python 3.11 or newer is needed and none was found; name one: make PYTHON=/path/to/python3" >&2; exit 1; \
	fi; \
	[ -x $(BIN)/pip ] || $$python -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]' --constraint constraints.txt
	@touch $@

install: $(READY)

demo: $(READY)
	$(BIN)/squad_nb demo

test: $(READY)
	$(BIN)/pytest -n $(JOBS) --flags '$(FLAGS)'

notebooks: $(READY)
	$(BIN)/nbdev_export
	$(BIN)/python tools/notebooks.py --flags '$(FLAGS)'
	$(BIN)/nbdev_clean

readme: $(READY)
	$(BIN)/python tools/links.py
	$(BIN)/python tools/picture.py
	$(BIN)/python tools/readme.py
	$(BIN)/python tools/notebooks.py nbs/commands.ipynb
	$(BIN)/nbdev_clean --fname nbs/commands.ipynb

docs: readme
	$(BIN)/python tools/docs.py --with $(BUILDER)
	$(BIN)/python tools/site_links.py

clean:
	rm -rf build dist *.egg-info _proc _docs .pytest_cache nbs/nbdev.yml
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +
