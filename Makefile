# Two commands on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: install demo test test-slow test-gpu benchmark-gpu faults fuzz load lint clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(INSTALLED)
	$(BIN)/python tools/demo.py --output demo --overwrite

# One thread in each of two processes: nets this small gain nothing from more.
test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -m 'slow or gpu'

test-gpu: $(INSTALLED)
	$(BIN)/python -m pytest -m gpu

# Needs a GPU. Each part apart, so that one that fails does not stop the others; fails at the end if one did.
benchmark-gpu: $(INSTALLED)
	@status=0; $(MAKE) test-gpu || status=1; \
	for part in input train detector cifar coco; do \
		$(BIN)/python tools/benchmark.py $$part --full --device cuda --output results/benchmark/$${part}_gpu.json || status=1; \
	done; exit $$status

# Real runs are killed, stopped, starved and damaged, and must end in the undisturbed ones' bits; some faults need root.
faults: $(INSTALLED)
	$(BIN)/python -m tests.faults --output results/faults.json

# Every parser for FUZZ_MINUTES, two at a time; what is found is written to tests/fuzz/crashes.
FUZZ_MINUTES ?= 5
fuzz: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[fuzz]'
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz --minutes $(FUZZ_MINUTES) --jobs 2 --output results/fuzz.json

# Half an hour and more: trainings on a million pictures watched, ten million detections scored.
load: $(INSTALLED)
	$(BIN)/python -m tests.load --minutes 15 --output results/load.json

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) demo build *.egg-info
