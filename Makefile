# Everything sets itself up: a machine needs Python 3.11 or newer, a C compiler and make, nothing else.
# make PYTHON=/path/to/python3 and make CC=clang choose which; make test ARGS="-k kernels" passes options on.
VENV := .venv
BIN := $(VENV)/bin
DEMO := build/demo
KERNELS := accel/_kernels.pyx $(wildcard accel/_[gt]*.[ch])
ARGS :=

.PHONY: help venv demo test bench lint wheel clean

help: ## say what there is
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1	\2/p' Makefile

venv: $(VENV)/installed ## make .venv, or bring it up to date

demo: $(VENV)/installed ## compile a shipped model, show it, compare it with onnxruntime
	@mkdir -p $(DEMO)
	$(BIN)/pcmc compile digits-cnn -o $(DEMO)/digits-cnn.pcmc
	$(BIN)/pcmc report $(DEMO)/digits-cnn.pcmc
	$(BIN)/pcmc compare digits-cnn --seeds 5

# One BLAS thread: the many small solves of the tests would spend their time waiting for a second one.
test: $(VENV)/installed ## run all tests
	OPENBLAS_NUM_THREADS=1 $(BIN)/pytest $(ARGS)

bench: $(VENV)/installed ## measure speed
	$(BIN)/python -m benchmarks $(ARGS)

lint: $(VENV)/installed-lint ## ruff, mypy over every source file, cython-lint
	$(BIN)/ruff check --output-format concise .
	PATH="$(BIN):$$PATH" cython-lint accel/*.pyx
	$(BIN)/python tools/check_types.py

wheel: $(VENV)/installed ## build sdist and wheel into dist/
	$(BIN)/python -m build --outdir dist .

clean: ## remove .venv and everything built
	rm -rf $(VENV) build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	rm -f accel/_kernels.c accel/_kernels*.so accel/_training*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/installed: pyproject.toml setup.py tools/make_venv.sh $(KERNELS)
	@PYTHON='$(PYTHON)' sh tools/make_venv.sh $(VENV)
	@touch $@

$(VENV)/installed-lint: $(VENV)/installed
	@$(BIN)/python tools/requirements.py lint > $(VENV)/lint.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement $(VENV)/lint.txt
	@touch $@
