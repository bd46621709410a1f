# make demo   a search on the toy space with real training, ending in a table and a picture
# make test   the quick tests; `make test ALL=1` runs the long ones too, and SHARE=4 beside it one of
#             four of them
# make lint   ruff, mypy, and the stair of imports
# make docs   the site, in docs/_build/html; its examples run (some minutes), with DOCS_EXAMPLES=none none does
# make mutants ARGS="--room search --count 20 --seed 1"   changes the code in 20 places drawn by the
#             seed, one after another, and counts how many of them the quick tests notice
# Each makes .venv when it is missing or older than the files that describe it.

# The first interpreter that the package supports; or say make PYTHON=/path/to/python3.11 test
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python3.10; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null \
	&& echo $$p && break; done)
EXTRAS ?= nni,latency,benchmarks,dev,test,docs
JOBS ?= 2
SHARE ?= 1
BIN := .venv/bin
STAMP := .venv/.installed
TORCH := $(shell grep '^torch==' constraints.txt)
TIMM := $(shell grep '^timm==' constraints.txt)

# More threads than cores slow small networks down; the tests run in JOBS processes.
test: export OMP_NUM_THREADS ?= 1

.PHONY: demo test lint docs mutants clean

demo: $(STAMP)
	$(BIN)/python examples/demo.py --out out/demo

test: $(STAMP)
	$(BIN)/python -m pytest -n $(JOBS) $(if $(ALL),-m "slow or not slow" --slow-share $(SHARE)) $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

docs: export OMP_NUM_THREADS ?= 1
docs: $(STAMP)
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

mutants: $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[mutants]"
	$(BIN)/python tests/mutants.py $(ARGS)

# torch goes first and alone: a looser requirement could take a build with gigabytes of CUDA packages.
# timm, which tests and benchmarks draw networks from, goes without its requirements: torchvision's
# wheels need CUDA beside a CPU torch, and timm's other needs stand in the extra `test`.
$(STAMP): setup.cfg pyproject.toml constraints.txt Makefile
	@test -n "$(PYTHON)" || { echo "Python 3.10 or newer must be installed, but none was found." >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[$(EXTRAS)]"
	$(BIN)/python -m pip install --quiet --no-deps "$(TIMM)"
	touch $@

clean:
	rm -rf .venv build dist *.egg-info docs/_build docs/gallery
