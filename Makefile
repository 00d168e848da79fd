# Two commands do everything: `make demo` and `make test`. Both set up what they need.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# The engine's wheel is fetched once, at set-up; after that neither demo nor tests need the network.
WHEELS := $(CURDIR)/build/wheels
STAMP  := $(VENV)/.ready-$(shell cksum pyproject.toml | cut -d' ' -f1)

export LEMONADE_WHEELS := $(WHEELS)

.PHONY: demo test test-vllm check setup bench docs clean

demo: setup
	$(BIN)/lemonade demo $(DEMO_ARGS)

test: check
	$(BIN)/python -m pytest $(TEST_ARGS)

# vLLM itself, on the processor: minutes and 3.5 GB. LEMONADE_VLLM_CACHE is a cache directory to keep it in.
test-vllm: setup
	$(BIN)/python -m pytest -m vllm tests/vllm $(TEST_ARGS)

check: setup
	$(BIN)/ruff check -q .
	$(BIN)/ruff format -q --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache > build/imports.log || { cat build/imports.log; exit 1; }

bench: setup
	$(BIN)/python -m bench.start
	$(BIN)/python -m bench.idle
	$(BIN)/python -m bench.run $(BENCH_ARGS)

# Rewrites the parts of docs/ that are generated from the code; `make test` checks that they are.
docs: setup
	$(BIN)/python -m tools.docs

setup: $(STAMP)

$(STAMP): pyproject.toml tools/setup.py
	$(PYTHON) tools/setup.py "$(VENV)" "$(WHEELS)"
	@rm -f $(VENV)/.ready-*
	@touch $@

clean:
	rm -rf $(VENV) build dist bench/bin
