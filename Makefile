# The commands that CI and developers run, spelled once.
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python

.PHONY: demo test test-slow check bench gpu lib clean

# The CPU build of torch is pinned here: a bare `torch` downloads gigabytes of CUDA.
$(VENV)/installed: pyproject.toml CMakeLists.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install -q --upgrade pip
	$(RUN) -m pip install -q torch==2.13.0
	$(RUN) -m pip install -q -e ".[dev]"
	touch $@

# The host library alone, for work from a checkout: into jumpgpu/lib.
lib:
	cmake -S . -B build/dev -DCMAKE_BUILD_TYPE=Release $(if $(LEVELS),-DJUMPGPU_LEVELS="$(LEVELS)") > /dev/null
	cmake --build build/dev -j 2

clean:
	rm -rf build dist jumpgpu/lib
