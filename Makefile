# make demo       train 512 models, draw their atlas, take out the best, check it against TransformerLens
# make test       run the tests, except the slow ones: minutes
# make test-slow  run the slow tests;  PART=2/4 runs the second of four parts of them
# make test-optimized  run the tests about bits, compiled as for users, with LLVM's optimizations
# make test-full  run all tests
# make test-tl4   test the reference and the parity check on TransformerLens 4.x, in its own environment
# make test-gpu-compile  compile the training programs for GPUs that need not be there, in an environment of its own
# make test-newest-jax  test without torch on the newest JAX that is allowed; its Python must have it (3.12 or newer)
# make gpu        ask a GPU all that can be asked of it, in an environment of its own; stops at the first failure
# make gpu-dry-run  the same at tiny sizes, without a GPU
# make lint       check style, types and imports;  make format  repair the style
# make docs       build the documentation, which opens offline; a warning is an error
# make pictures   take the pictures of the documentation from the pages of the demo, with Chromium
# make pins       ask the package index whether the pinned versions install with every promised Python
# make release    build the wheel and the sdist of the last commit, and check them in a fresh environment

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN ?= runs/demo
STORE ?= populations/demo
VENV4 := .venv-tl4
TL4 := 4.3.0
VENVGPU := .venv-gpu
VENVJAX := .venv-newest-jax
VENVCUDA := .venv-cuda
OLDEST := 3.11.0
NEWEST := 3.14.0
PARALLEL := --numprocesses logical --maxprocesses 4 --dist loadfile
MINUTES ?= inf
PART ?= 1/1
SLOW = --timeout 1800 --minutes $(MINUTES) --part $(PART) -rs

.PHONY: demo help test test-slow test-optimized test-full test-tl4 test-newest-jax test-gpu-compile gpu gpu-dry-run lint format docs pictures pins release clean

demo: $(VENV)/reference.stamp
	$(BIN)/jax-revinc population --preset tutorial --seeds 512 --out $(STORE) --resume
	$(BIN)/jax-revinc atlas $(STORE)
	$(BIN)/jax-revinc export $(STORE) --best --out $(RUN) --overwrite
	$(BIN)/jax-revinc report $(RUN)
	$(BIN)/python -m parity check $(RUN)
	@echo
	@echo "Open in a browser: $(STORE)/atlas.html, what 512 models learned,"
	@echo "and $(RUN)/report.html, how the best of them works."

help:
	@sed -n 's/^# \(make \)/\1/p' Makefile

test: $(VENV)/dev.stamp
	$(BIN)/python -m pytest $(PARALLEL)

test-slow: $(VENV)/dev.stamp
	$(BIN)/python -m pytest $(PARALLEL) -m 'slow and not optimized' $(SLOW)

test-optimized: $(VENV)/dev.stamp
	$(BIN)/python -m pytest $(PARALLEL) -m optimized $(SLOW)

test-full: test test-slow test-optimized

test-tl4: $(VENV4)/tests-tl4.stamp
	$(VENV4)/bin/python -m pytest $(PARALLEL) tests/parity tests/torch_reference

test-newest-jax: $(VENVJAX)/tests.stamp
	$(VENVJAX)/bin/python -m pytest $(PARALLEL) tests/revinc tests/jax_revinc

# JAX_PLATFORMS: the plugin would look for a GPU, and complain. XLA_FLAGS could change the programs.
test-gpu-compile: $(VENVGPU)/tests-gpu-compile.stamp
	JAX_PLATFORMS=cpu XLA_FLAGS= $(VENVGPU)/bin/python -m pytest tests/gpu_compile -m slow --timeout 900 -rs

gpu: $(VENVCUDA)/gpu.stamp
	$(VENVCUDA)/bin/python -m benchmarks.gpu

gpu-dry-run: $(VENV)/dev.stamp
	$(BIN)/python -m benchmarks.gpu --dry-run

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/dev.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/docs.stamp
	$(BIN)/sphinx-build --quiet --fresh-env --fail-on-warning --keep-going -d build/docs/doctrees docs build/docs/html
	@echo "Open build/docs/html/index.html in a browser."

pictures: demo $(VENV)/dev.stamp
	$(BIN)/python docs/pictures.py $(RUN) $(STORE)

# A package without a wheel can't be asked for another Python; its line in constraints.txt says so.
pins: $(VENV)/bin/python
	for python in $(OLDEST) $(NEWEST); do \
		$(BIN)/python -m pip install --quiet --dry-run --no-deps --target $(VENV)/pins \
			--python-version $$python --only-binary :all: $$(sed '/#/d' constraints.txt) || exit 1; \
	done

release: $(VENV)/release.stamp
	$(BIN)/python .ci/release.py

clean:
	rm -rf $(VENV) $(VENV4) $(VENVJAX) $(VENVGPU) $(VENVCUDA)

$(VENV)/bin/python $(VENV4)/bin/python $(VENVJAX)/bin/python $(VENVGPU)/bin/python $(VENVCUDA)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| (echo "jax-revinc needs Python 3.11 or newer: make PYTHON=python3.12"; exit 1)
	$(PYTHON) -m venv $(@:/bin/python=)

$(VENV)/%.stamp: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing ($*); the first time takes a few minutes."
	$(BIN)/python .ci/install.py constraints.txt $*
	@touch $@

# The same versions of everything except TransformerLens.
$(VENV4)/%.stamp: $(VENV4)/bin/python pyproject.toml constraints.txt
	@echo "Installing TransformerLens $(TL4) beside ($*); the first time takes a few minutes."
	sed 's/^transformer-lens==.*/transformer-lens==$(TL4)/' constraints.txt > $(VENV4)/constraints.txt
	$(VENV4)/bin/python .ci/install.py $(VENV4)/constraints.txt $*
	@touch $@

# The same versions of everything that has not to do with JAX.
$(VENVJAX)/%.stamp: $(VENVJAX)/bin/python pyproject.toml constraints.txt
	@echo "Installing the newest JAX beside ($*); the first time takes a minute."
	sed -E '/^(jax|jaxlib|flax|optax|orbax.*|ml_dtypes|numpy|scipy)==/d; $$ajax>=0.11' constraints.txt > $(VENVJAX)/constraints.txt
	$(VENVJAX)/bin/python .ci/install.py $(VENVJAX)/constraints.txt $*
	@touch $@

# The same versions, and JAX's plugin of the version of jax. It brings XLA's compiler for GPUs, but no CUDA libraries.
$(VENVGPU)/%.stamp: $(VENVGPU)/bin/python pyproject.toml constraints.txt
	@echo "Installing JAX's plugin for GPUs beside ($*); the first time takes a minute."
	sed -n 'p; s/^jax==/jax-cuda12-plugin==/p; s/^jax-cuda12-plugin==/jax-cuda12-pjrt==/p' constraints.txt > $(VENVGPU)/constraints.txt
	$(VENVGPU)/bin/python .ci/install.py $(VENVGPU)/constraints.txt $*
	@touch $@

# The same versions. jax and torch bring the CUDA libraries, some GB; one set of them for both, that of CUDA 13.
$(VENVCUDA)/%.stamp: $(VENVCUDA)/bin/python pyproject.toml constraints.txt
	@echo "Installing JAX, torch and CUDA's libraries ($*); the first time takes minutes and some GB."
	$(VENVCUDA)/bin/python .ci/install.py constraints.txt $*
	@touch $@
