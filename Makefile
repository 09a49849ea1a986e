# The commands that CI and developers run, spelled once. Set-up is part of each: an empty machine needs Python 3.11 and a C++ compiler.
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python
DEMO ?= demo
# Where torch's build without CUDA is (0.2 GB; the package index has 3 GB of CUDA for Linux). An index that does not answer is passed over,
# and TORCH_INDEX= asks only the package index. https://download.pytorch.org/whl/cu126 is the build for CUDA 12.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
TORCH ?= torch==2.13.0
# This machine's instruction-set level, all that the demonstration builds; `developed` builds every level, as a wheel does.
LEVEL := $(shell grep -qw avx512vl /proc/cpuinfo 2> /dev/null && echo x86-64-v4 || { grep -qw avx2 /proc/cpuinfo 2> /dev/null && echo x86-64-v3; })
LEVELS_OF = $(if $(LEVEL),-C "cmake.define.JUMPGPU_LEVELS=$(1)")
PLATES = --plate DEMO1 --plate DEMO2 --plate DEMO3

.PHONY: demo test smoke test-slow pythons check docs bench gpu compilers lib wheels clean

# What the demonstration needs; `developed` adds what tests, checks and documentation do.
$(VENV)/installed: pyproject.toml CMakeLists.txt
	@command -v c++ > /dev/null || { echo "jumpgpu needs a C++17 compiler to build its kernels: apt-get install g++, or set CXX" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install -q --upgrade pip
	$(RUN) -m pip install -q --no-deps --timeout 10 --retries 1 $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) $(TORCH)
	$(RUN) -m pip install -q -e ".[map]" $(call LEVELS_OF,$(LEVEL))
	touch $@

$(VENV)/developed: $(VENV)/installed
	$(RUN) -m pip install -q -e ".[dev,map]" $(call LEVELS_OF,x86-64-v2;x86-64-v3;x86-64-v4)
	touch $@

# Three replicate plates, drawn; images to features, profiles, a score and the plate's page.
demo: $(VENV)/installed
	$(RUN) -m jumpgpu.synthetic --output $(DEMO)/images --plate DEMO --replicates 3 --wells 24 --sites 2 --size 540 --cells 40
	$(RUN) -m jumpgpu.extract $(PLATES) --images $(DEMO)/images --output $(DEMO) --save-labels --save-overview
	$(RUN) -m jumpgpu.profile $(PLATES) --output $(DEMO) --metadata $(DEMO)/images/metadata --overwrite
	$(RUN) -m jumpgpu.score replicating $(PLATES) --output $(DEMO) --metadata $(DEMO)/images/metadata
	$(RUN) -m jumpgpu.report $(DEMO)/DEMO1 $(DEMO)/DEMO2 $(DEMO)/DEMO3 --metadata $(DEMO)/images/metadata \
		--scores $(DEMO)/scores/replicating.json --overwrite

test: $(VENV)/developed
	$(RUN) -m pytest -n auto --dist loadfile

# The whole program on a drawn plate, in seconds.
smoke: $(VENV)/developed
	$(RUN) -m pytest -q tests/test_tiny.py

# Minutes to an hour: every mutant, every fault, the large cases.
test-slow: $(VENV)/developed
	$(RUN) -m pytest -m slow

# The parts that meet other libraries, on other Pythons, each in an environment of its own (torch is the package index's there,
# the build with CUDA, if TORCH_INDEX does not answer).
PYTHONS ?= python3.12 python3.13
PARTS = tests/store tests/settings tests/run tests/profiles tests/scores tests/cli tests/images tests/features
pythons:
	for python in $(PYTHONS); do \
		$(MAKE) build/$$python/developed VENV=build/$$python PYTHON=$$python && \
		build/$$python/bin/python -m pip install -q "mantispy>=0.1.0a1" "spatialdata>=0.7,<0.9" && \
		build/$$python/bin/python -m pytest $(PARTS) || exit 1; \
	done

check: $(VENV)/developed
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy
	$(RUN) -m tools.lines
	$(RUN) -m pytest -q tests/test_layers.py tests/gpu/test_kernels_compile.py -k "not architecture or sm_80"

# The documentation's site, into build/site; a broken link is an error.
docs: $(VENV)/developed
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --quiet

# Small, on drawn fields; benchmarks/ tells what else there is (peers, growth, real fields).
bench: $(VENV)/developed
	$(RUN) -m benchmarks.kernels
	$(RUN) -m jumpgpu.synthetic --output build/bench --plate BENCH --wells 6 --sites 1
	$(RUN) -m benchmarks.throughput --images build/bench --plate BENCH --illumination flatfield --fields 0 \
		--json build/bench/throughput.json

# On a machine with a CUDA GPU, with torch and CuPy installed in PYTHON: what is there, bits and times of whole fields, throughput, every
# kernel against the CPU, faults, compute-sanitizer. Under nine minutes; downloads nothing.
gpu:
	$(PYTHON) -m benchmarks.gpu

# The host library alone, for work from a checkout: into jumpgpu/lib.
lib:
	@cmake -S . -B build/dev -DCMAKE_BUILD_TYPE=Release $(if $(LEVELS),-DJUMPGPU_LEVELS="$(LEVELS)") > /dev/null
	@cmake --build build/dev -j 2

# The wheels of all platforms, into dist; compiled and checked on this machine.
wheels: $(VENV)/developed
	$(RUN) -m pip install -q -e ".[release]" $(call LEVELS_OF,$(LEVEL))
	$(RUN) -m tools.wheels --output dist

clean:
	rm -rf build dist jumpgpu/lib $(DEMO)
	rm -rf .cmake .ninja_deps .ninja_log .skbuild-info.json CMakeCache.txt CMakeFiles CMakeInit.txt build.ninja cmake_install.cmake

# The oldest and newest NVRTC 12, the first that knows sm_100 and sm_120, and the oldest and newest CuPy that are supported, for tests/gpu/test_compilers.py; no GPU is needed.
compilers: $(VENV)/developed
	for v in 12.0.140 12.8.93 12.9.86; do $(RUN) -m pip install -q --no-deps --target build/nvrtc/$$v nvidia-cuda-nvrtc-cu12==$$v; done
	for v in 13.6.0 14.2.0; do $(RUN) -m pip install -q --no-deps --target build/cupy/$$v cupy-cuda12x==$$v fastrlock cuda-pathfinder; done
