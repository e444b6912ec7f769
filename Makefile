# Every command a person needs. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
STAMP := $(VENV)/.installed
KERNEL_SOURCES := $(shell find kernels -name '*.cpp' -o -name '*.h' -o -name '*.inl' -o -name '*.cu' -o -name CMakeLists.txt)
WEB_SOURCES := $(shell find web -path web/node_modules -prune -o -type f -print)

.DEFAULT_GOAL := help
.PHONY: help setup web demo test check format bench serve kernels kernels-check cuda-check gpu-check clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) web ## environment in .venv, kernels, page (done by the others when needed)

$(STAMP): pyproject.toml constraints.txt $(KERNEL_SOURCES)
	@command -v c++ >/dev/null || command -v g++ >/dev/null || { echo "A C++ compiler is needed to build the kernels. Debian, Ubuntu: apt-get install g++"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed, this is $$($(PYTHON) --version). Set PYTHON=…"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "Python's venv module is needed. Debian, Ubuntu: apt-get install python3-venv"; exit 1; }
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[embedded,dev]'
	touch $@

web: $(STAMP) api/static/.built ## the page and the viewer, into api/static

api/static/.built: $(WEB_SOURCES)
	$(PY) web/build.py
	touch $@

demo: setup ## make a capture, run the service, finish a splat, say where to look
	$(PY) -m bench.demo

test: setup ## all tests (real Postgres, Redis and Chromium where the machine has them)
	$(PY) -m pytest

check: $(STAMP) ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## put the code in order
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

kernels: ## rebuild the kernels alone, in build/kernels
	cmake -S kernels -B build/kernels -G Ninja -DCMAKE_BUILD_TYPE=Release
	cmake --build build/kernels

kernels-check: ## kernels under sanitizers, on emulated older and Arm machines, at the limits of sizes
	kernels/tests/check.sh build/check

cuda-check: setup ## CUDA kernels without a card: compiled for all, logic run on the CPU
	PYTHON=$(PY) kernels/tests/cuda_check.sh build/cuda-check

gpu-check: ## all that needs an NVIDIA card, in nine minutes, with any python3 that has torch: docs/gpu.md
	GSPLAT="$(GSPLAT)" GPU_CHECK_SCENES="$(GPU_CHECK_SCENES)" timeout -k 5 535 $(PYTHON) -m bench.gpu_check $(if $(JSON),--json $(JSON)) $(if $(ONLY),--only $(ONLY))

bench: setup ## kernel and training speed of this machine
	$(PY) -m bench.kernels
	$(PY) -m bench.train_speed

serve: setup ## the service on this machine: http://127.0.0.1:8000
	$(BIN)/splatworks serve

clean: ## remove what was built
	rm -rf build .demo api/static .pytest_cache .mypy_cache .ruff_cache
