# Each target sets up what it needs, on a fresh machine too: Python 3.11 or newer, a C++17 compiler, make.
#
#   make demo    synthetic boards -> artifact -> scores, pictures, figures, in ./demo
#   make test    lint, C++ tests, Python tests
#   make quality detection quality on real images (KAD_WEIGHTS_DIR, KAD_DATA_DIR), into the README
#   make cutpaste trains CutPaste on synthetic boards, twice (KAD_WEIGHTS_DIR), into docs/cutpaste.md
#   make experiments  the thesis' grid on synthetic boards, PatchCore's on real surfaces, into
#                docs/experiments.md (KAD_WEIGHTS_DIR, KAD_DATA_DIR; an hour);
#                RESNET50_WEIGHTS=random:0 where ImageNet's cannot be had
#   make bench   speed and memory, answers checked first (KAD_WEIGHTS_DIR, KAD_DATA_DIR; an hour and
#                a half, on a machine that does nothing else), into the README
#   make precision  fp32, fp16 and int8 side by side (KAD_WEIGHTS_DIR, KAD_DATA_DIR; ten minutes),
#                into docs/precision.md
#   make peers   anomalib, for make bench to measure beside kad (it is skipped by name otherwise)
#   make windows boards in windows against tiles and the thesis' path, quality and speed, into
#                docs/windows.md (KAD_WEIGHTS_DIR, KAD_DATA_DIR; an hour)
#   make fuzz    libFuzzer on the readers of artifacts, FUZZ_SECONDS for each (needs Clang)
#   make threads eight threads share a detector, a minute for each method: under ThreadSanitizer, and
#                with ONNX Runtime
#   make soak    the line-rate loop for thousands of frames, without maps, with maps, with CutPaste:
#                latencies, flat memory
#   make coreset   the selection against plain greedy in NumPy, 39,200 real features (minutes)
#   make kernels   compile the CUDA kernels, no GPU needed (ptxas of the CUDA toolkit), table of registers
#   make gpu-check on a machine with an NVIDIA GPU: tests, compute-sanitizer, kad-bench run gpu, with
#                what PYTHON has (no network, nine minutes at most)
#   make drift   how often `kad drift` alarms on fresh and on changed boards (KAD_WEIGHTS_DIR)
#   make fuzz-search  random hard cases and every bound of the search, SEARCH_SECONDS (300) in all
#   make sanitize     the search's C++ tests under the address, undefined and thread sanitizers
#   make lint    ruff, mypy, import-linter, clang-format
#   make clean   remove what was built (not .venv); make distclean removes .venv too

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
JOBS   ?= $(shell nproc)
CORE   := CMakeLists.txt $(wildcard cmake/*) $(shell find kad_sdk/csrc kad_sdk/include -type f)
CXX_FILES := $(shell find kad_sdk/csrc kad_sdk/include tests/c tests/fuzz tests/kernels examples -name '*.[ch]' -o -name '*.[ch]pp')

CONFIGURE := $(BIN)/cmake -S . -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja
FUZZ_SECONDS ?= 120

.PHONY: demo precision quality windows cutpaste experiments test fuzz threads soak lint test-c test-python format setup clean distclean kernels gpu-check coreset drift bench peers fuzz-search sanitize
.DELETE_ON_ERROR:

setup: $(VENV)/.installed

# The project and everything it is built and tested with, at the tested versions. The install is
# editable: Python files are used where they lie, the compiled core is built and installed.
$(VENV)/.requirements: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "kad needs Python 3.11 or newer, got " + sys.version)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt scikit-build-core cmake ninja
	$(BIN)/pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	touch $@

$(VENV)/.installed: $(VENV)/.requirements $(CORE)
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

demo: setup
	$(BIN)/python examples/python/demo.py demo

quality: setup
	$(BIN)/python tests/export/quality.py --results benchmarks/results/quality.json --readme README.md

cutpaste: setup
	rm -rf build/cutpaste
	$(BIN)/python tests/export/cutpaste_quality.py --results benchmarks/results/cutpaste.json \
	  --docs docs/cutpaste.md --repeat --keep build/cutpaste
	$(BIN)/python tests/export/cutpaste_pictures.py build/cutpaste/first docs/images

RESNET50_WEIGHTS ?= imagenet

EXPERIMENTS := $(BIN)/python tests/export/experiments_docs.py
EXPERIMENTS_INTO := --docs docs/experiments.md --images docs/images --results benchmarks/results

experiments: setup
	$(EXPERIMENTS) boards build/experiments $(EXPERIMENTS_INTO)/experiments.json \
	  --resnet50-weights $(RESNET50_WEIGHTS)
	$(EXPERIMENTS) surfaces build/surfaces $(EXPERIMENTS_INTO)/surfaces.json

windows: setup
	$(BIN)/python tests/export/windows_quality.py \
	  --results benchmarks/results/windows_quality.json --docs docs/windows.md
	$(BIN)/kad-bench run windows --profile regular --json benchmarks/results/windows.json
	$(BIN)/kad-bench table benchmarks/results/windows.json --into docs/windows.md

BENCH := benchmarks/results
BENCH_RUN := $(BIN)/kad-bench run --profile regular

bench: setup
	$(BENCH_RUN) board tile network startup memory --json $(BENCH)/regular.json
	$(BENCH_RUN) search --json $(BENCH)/search.json
	$(BIN)/kad-bench readme $(BENCH)/regular.json $(BENCH)/search.json $(BENCH)/windows.json README.md
	$(BIN)/kad-bench table $(BENCH)/search.json --into docs/search.md

precision: setup
	$(BENCH_RUN) precision --json $(BENCH)/precision.json
	$(BIN)/kad-bench table $(BENCH)/precision.json --into docs/precision.md

peers: setup
	$(BIN)/pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[peers]'

coreset: setup
	$(BIN)/python tests/export/coreset_exact.py build/coreset 0 1 2

kernels: setup
	$(BIN)/python -m kad_kernels.aot

# No setup: the packages are those of PYTHON, on a machine without a network too.
gpu-check:
	$(PYTHON) tests/kernels/gpu_check.py

drift: setup
	$(BIN)/python tests/export/drift_trials.py

SEARCH_SECONDS ?= 300
SANITIZERS := address,undefined thread
SEARCH_TESTS := test_search search_bound

test: lint test-c test-python

# Two workers share the cores: threads of OpenMP must not spin while they wait.
test-python: setup
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n 2 --dist loadfile

# With the detector where ONNX Runtime's header can be had: tests/runtime uses the same build.
test-c: setup
	cmake/onnxruntime_header.sh build/onnxruntime && runtime=ON || runtime=OFF; \
	  test $$runtime = ON -o -z "$$KAD_REQUIRE_ALL" && $(CONFIGURE) --preset test -DKAD_WITH_RUNTIME=$$runtime
	$(BIN)/cmake --build build/test -j $(JOBS)
	$(BIN)/ctest --test-dir build/test --output-on-failure

fuzz: setup
	$(BIN)/python tests/fuzz/fuzz_readers.py --seconds $(FUZZ_SECONDS)

threads: setup
	$(BIN)/python tests/runtime/share_detector.py

soak: setup
	$(BIN)/python tests/runtime/soak.py

fuzz-search: setup
	$(CONFIGURE) -B build/test -DCMAKE_BUILD_TYPE=RelWithDebInfo -DKAD_BUILD_TESTS=ON
	$(BIN)/cmake --build build/test -j $(JOBS) --target search_bound
	$(BIN)/python tests/fuzz/fuzz_search.py --seconds $(SEARCH_SECONDS) \
	  --bound-checker build/test/tests/c/search_bound

# The check of bounds runs in one thread: what it could show, the address sanitizer's build shows.
sanitize: setup
	for kind in $(SANITIZERS); do \
	  folder=build/sanitize-$${kind%%,*}; \
	  $(CONFIGURE) -B $$folder -DCMAKE_BUILD_TYPE=RelWithDebInfo -DKAD_BUILD_TESTS=ON \
	    -DKAD_SANITIZE=$$kind && \
	  $(BIN)/cmake --build $$folder -j $(JOBS) --target $(SEARCH_TESTS) && \
	  tests=$$(test $$kind = thread && echo test_search || echo '(test_search|search_bound)') && \
	  UBSAN_OPTIONS=halt_on_error=1 $(BIN)/ctest --test-dir $$folder --output-on-failure \
	    -R "c\.$$tests" || exit 1; \
	done

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/clang-format --dry-run -Werror $(CXX_FILES)

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_FILES)

clean:
	rm -rf build dist demo

distclean: clean
	rm -rf $(VENV)
