# make help lists the targets. Needs python3 with venv, and make; everything else is installed into .venv.

PYTHON       ?= python3
VENV         ?= .venv
WORKERS      ?= 2
PYTEST_ARGS  ?=
ENGINE       ?= build/bench/engines
BENCH_ARGS   ?=
FUZZ_SECONDS ?= 3600
FUZZ_ARGS    ?=

SHELL       := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.NOTPARALLEL:                      # two pips must not write into one environment at a time

BIN := $(VENV)/bin
# Every install is constrained: an unpinned torch is gigabytes larger, and what is tested is what constraints.txt says.
PIP := $(BIN)/python -m pip --disable-pip-version-check
# pip compiles what it installs to bytecode on one core and all of it, for a minute and a half: here it is done on all cores, and
# without what nothing imports.
INSTALL := $(PIP) install --quiet --no-compile --constraint constraints.txt
COMPILE := $(BIN)/python -m compileall -qq -j 0 -x '/tests?/|/transformers/models/' $(VENV)/lib || true  # templates are no Python
# an edited pyproject.toml means other dependencies or commands, an edited native source another build
FRAME := pyproject.toml constraints.txt CMakeLists.txt $(wildcard cmake/* plugins/CMakeLists.txt plugins/exports.map \
    plugins/kernels/* plugins/tensorrt/*)

.PHONY: help
help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand --tabs=12

.PHONY: demo
demo: $(VENV)/.for-use  ## export the small trained model in assets/, run it on an image
	PATH="$(abspath $(BIN)):$$PATH" bash examples/demo.sh

# Each worker has one thread, because more would wait for one another, and needs about 1 GB of memory.
# xdist would start with the files of most tests; tests/schedule.py knows which take longest.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses=$(WORKERS) --dist=loadgroup --no-loadscope-reorder

.PHONY: test
test: $(VENV)/.for-development  ## run all tests; WORKERS=8 on eight cores, PYTEST_ARGS="-k name" for some of them
	$(PYTEST) $(PYTEST_ARGS)

.PHONY: durations
durations: $(VENV)/.for-development  ## run all tests and note how long each file takes, by which later runs are scheduled
	$(PYTEST) --record-durations

# Tests of what everything else builds on, of one decoder of each kind: see CONTRIBUTING.md.
CHECKED := tests/model/test_token_pass.py tests/model/test_sparse_forwarding.py tests/export/test_chain_equals_torch.py tests/checkpoints/test_files.py \
    tests/runtime/test_session.py tests/runtime/test_slide.py tests/runtime/test_open_bundle.py tests/runtime/test_cli_run.py \
    tests/runtime/gpu/test_modes.py tests/packaging/test_layers.py tests/packaging/test_documents.py
ONE_OF_EACH := not (naive or pup or linear or mask-0 or mla-2 or large_in_memory)

.PHONY: check
check: $(VENV)/.for-development  ## lint, and the tests that matter most: two minutes, before each commit
	$(MAKE) --keep-going lint-python lint-native lint-types
	$(PYTEST) $(CHECKED) -k "$(ONE_OF_EACH)" $(PYTEST_ARGS)

.PHONY: mutations
mutations: $(VENV)/.for-development  ## put faults into the chain on a GPU, each of which a test must notice (minutes)
	$(BIN)/python tests/mutations.py

.PHONY: fuzz
fuzz: $(VENV)/.for-development  ## mutants of checkpoints, bundles, images and arguments, for FUZZ_SECONDS (an hour) in all
	PYTHONPATH=tests $(BIN)/python -m fuzz.run --seconds $(FUZZ_SECONDS) --workers 2 $(FUZZ_ARGS)

.PHONY: lint
lint: $(VENV)/.for-development  ## check style, formatting and types, and that the documentation builds
	$(MAKE) --keep-going lint-python lint-types lint-native docs

.PHONY: bench bench-chain bench-engines
bench: bench-chain bench-engines  ## measure the chain, and the building of ViT-L's plans (4 GB of memory)

bench-chain: $(VENV)/.for-use  ## the chain against the dense model: ENGINE=engines/ BENCH_ARGS=--json; default the trained model
	[ $(ENGINE) != build/bench/engines ] || $(BIN)/dovit-export --ckpt assets/streets-tiny.safetensors --out $(ENGINE)
	$(BIN)/dovit-bench --engine $(ENGINE) $(BENCH_ARGS)

bench-engines: $(VENV)/.for-development
	$(BIN)/python -m dovit.benchmarks.engines

.PHONY: bench-embedding
bench-embedding: $(VENV)/.for-use  ## the C++ runtime beside Python's; needs what docs/embedding.md lists
	[ $(ENGINE) != build/bench/engines ] || $(BIN)/dovit-export --ckpt assets/streets-tiny.safetensors --out $(ENGINE)
	$(BIN)/python -m dovit.benchmarks.embedding --engine $(ENGINE) --image assets/street.png

.PHONY: docs
docs: installed-copy  ## build the documentation's site into build/docs; needs no network
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

.PHONY: format
format: $(VENV)/.for-development  ## rewrite the sources as `make lint` wants them
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .
	$(NATIVE_SOURCES) | xargs -0 --no-run-if-empty $(BIN)/clang-format -i

.PHONY: clean
clean:  ## remove what was built and cached; the environment stays
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

.PHONY: distclean
distclean: clean  ## remove the environment too
	rm -rf $(VENV)

# --- parts of lint, which are the pre-commit hooks as well ---

.PHONY: lint-python lint-types lint-native
lint-python: $(VENV)/.for-development
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The editable install is an import hook, which mypy does not run, and the source folders are not named dovit. So mypy sees what
# users get: the package as installed, a fresh copy every time (seconds), with its messages led back to the sources.
TYPED := build/typed
.PHONY: installed-copy
installed-copy: $(VENV)/.for-development
	rm -rf $(TYPED)
	DOVIT_PYTHON_ONLY=1 $(PIP) install --quiet --no-deps --no-build-isolation --target $(TYPED) .

lint-types: installed-copy
	cd $(TYPED) && MYPYPATH=$(abspath $(VENV))/stubs $(abspath $(BIN))/python -m mypy --num-workers $(WORKERS) --config-file $(CURDIR)/pyproject.toml \
	    --cache-dir $(CURDIR)/.mypy_cache --package dovit | sed 's|^dovit/||'

NATIVE_SOURCES := find plugins engines runtime tests examples benchmarks -type f \
    '(' -name '*.c' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' -o -name '*.h' -o -name '*.hpp' ')' -print0
lint-native: $(VENV)/.for-development
	$(NATIVE_SOURCES) | xargs -0 --no-run-if-empty $(BIN)/clang-format --dry-run --Werror

# --- the environment: one folder, filled as far as the target needs ---

# Editable, so that edits and new files show without a reinstall. Without build isolation, so that what builds is pinned too;
# setuptools because TensorRT-RTX comes as a source package, and the one that venv brings knows no bdist_wheel.
EDITABLE := $(INSTALL) --no-build-isolation --editable

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.for-use: $(FRAME) | $(BIN)/python
	$(INSTALL) scikit-build-core cmake ninja setuptools
	$(EDITABLE) '.[export]'
	$(COMPILE)
	touch $@

# TensorRT's stubs ask for TensorRT itself, gigabytes that a type checker has no use for, and would be taken for it by an import:
# so they lie in a folder of their own, which only mypy is told of. The sed mends two signatures in them that no parser takes.
# timm asks for torchvision, whose builds need their own torch's; its vision transformer does not (tests/oracle/timm_vit.py).
# Gradio asks for Pillow below 13, works with 13, and the C++ runtime's resizing is equal to 13's.
# mmsegmentation asks for opencv-python, which needs libGL, which servers lack; the headless build of the same version does not.
$(VENV)/.for-development: $(FRAME) | $(BIN)/python
	$(INSTALL) scikit-build-core cmake ninja setuptools
	$(EDITABLE) '.[test,oracle,dev]'
	$(INSTALL) --no-deps timm
	$(PIP) install --quiet --no-deps pillow==13.0.0
	$(INSTALL) --no-deps --upgrade --target $(VENV)/stubs tensorrt-stubs
	sed -i -E 's/(= None, channel_axis: int)\)/\1 = ...)/; s/\bin: list/in_: list/' $(VENV)/stubs/tensorrt_bindings/tensorrt.pyi
	$(BIN)/python -c 'import cv2' 2>/dev/null || { \
	    $(PIP) uninstall --quiet --yes opencv-python; \
	    $(INSTALL) --no-deps --force-reinstall opencv-python-headless; }
	$(COMPILE)
	touch $@ $(VENV)/.for-use
