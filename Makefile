# One verb a line; `make` alone lists them. Everything installs itself into .venv on first use.
# ARGS is handed on: make demo ARGS=--once. TORCH=cpu|default overrides the choice of torch's build.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && exit; done; echo python3)
TORCH ?= auto
BIN := .venv/bin
CHECKED := forebay tests scripts training bench
# Two files at a time, for most tests wait. Many are about time: what fails beside another is told,
# and must pass alone.
QUICK := -m "not slow"

.DEFAULT_GOAL := help
.PHONY: help demo serve ask doctor test check lint types page-types layers fmt pytest test-browser chaos hostile gpu-suite gpu-wheels monitoring slow browser screenshots docs lock peers bench-engine bench-queue bench-door bench-page bench-console install install-dev system clean

help:  ## list the verbs
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

demo: install  ## the whole stack, a burst of 50 pictures at once, then the page stays up
	@$(BIN)/forebay demo $(ARGS)
serve: install  ## the whole stack
	@$(BIN)/forebay serve $(ARGS)
ask: install  ## one question: make ask ARGS='picture.jpg "What is the price?"'
	@$(BIN)/forebay ask $(ARGS)
doctor: install  ## what is wrong on this machine, and its mend
	@$(BIN)/forebay doctor $(ARGS)

test: check system pytest  ## lint, types, layers and every test but the slow ones
check: lint types layers  ## what needs no test run
lint: install-dev  ## style, and formatting as it should be
	@$(BIN)/ruff check $(CHECKED) && $(BIN)/ruff format --check $(CHECKED)
types: install-dev  ## strict type checking
	@$(BIN)/mypy
page-types: install-dev  ## the pages' scripts, by their JSDoc (TypeScript, fetched by npm)
	@$(BIN)/python -m scripts.page_types
layers: install-dev  ## the one-way street: who may import whom
	@$(BIN)/lint-imports
pytest: install-dev  ## the tests, two files at a time: make pytest ARGS='tests/queue -x'
	@$(BIN)/pytest $(or $(ARGS),$(QUICK) -n 2 --dist loadfile) \
	  $(if $(ARGS),,|| { echo "once more, alone:" && $(BIN)/pytest $(QUICK) --last-failed --last-failed-no-failures none; })
test-browser: install-dev system  ## the pages in a real Chromium, the dear tests too
	@$(BIN)/pytest tests/browser $(ARGS)
chaos: install-dev  ## 5,000 tasks under 200 faults: make chaos ARGS='--tasks 500 --faults 40 --seed 7'
	@$(BIN)/python -m tests.chaos --json runs/chaos.json $(ARGS)
hostile: install-dev  ## 2,000 hostile requests: make hostile ARGS='--count 300 --seed 7'
	@$(BIN)/python -m tests.hostile --json runs/hostile.json $(ARGS)
gpu-suite: install-dev  ## tests and benchmark that need an NVIDIA GPU, about nine minutes
	@PYTHON=$(BIN)/python sh scripts/gpu_suite.sh $(ARGS)
gpu-wheels: install-dev  ## what a GPU machine without a network lacks, into wheels/ (ARGS=package names)
	@$(BIN)/python -m scripts.gpu_wheels fetch $(ARGS)
monitoring: install-dev system  ## every query of every dashboard, asked of a live Prometheus
	@$(BIN)/pytest tests/monitoring $(ARGS)
slow: install-dev system  ## every test, the slow ones too
	@$(BIN)/pytest $(ARGS)

fmt: install-dev  ## format and mend what can be mended
	@$(BIN)/ruff format $(CHECKED) && $(BIN)/ruff check --fix $(CHECKED)
docs: install-dev  ## write the pages that are generated from the code
	@$(BIN)/python -m scripts.generated_docs
screenshots: install-dev system  ## docs/images, from the real stack
	@$(BIN)/python -m scripts.screenshots
browser: install-dev  ## Playwright's own Chromium, where the system has none
	@$(BIN)/playwright install chromium
peers: install  ## environments of what the benches compare with (ARGS=vllm, hf, queue or door)
	@$(BIN)/python -m bench.peer_setup $(ARGS)
bench-engine: install  ## Forebay beside its peers: make bench-engine ARGS='--only burst_tiny'
	@$(BIN)/python -m bench.engine --json runs/bench-engine.json $(ARGS)
bench-queue: install  ## its queue beside others: make bench-queue ARGS='--only process'
	@$(BIN)/python -m bench.queue --json runs/bench-queue.json $(ARGS)
bench-page: install-dev system  ## how soon the page is usable: make bench-page ARGS='--loads 20'
	@$(BIN)/python -m bench.page --json runs/bench-page.json $(ARGS)
bench-door: install  ## the door beside Flask and Redis, overload, the road: make bench-door ARGS='--only added'
	@$(BIN)/python -m bench.door --json runs/bench-door.json $(ARGS)
bench-console: install  ## what open consoles cost the API: make bench-console ARGS='--consoles 20'
	@$(BIN)/python -m bench.console --json runs/bench-console.json $(ARGS)
lock: install-dev  ## requirements/*.lock anew from pyproject.toml (ARGS=--upgrade)
	@$(BIN)/python scripts/lock.py $(ARGS)

install:
	@$(PYTHON) scripts/bootstrap.py engine --torch $(TORCH)
install-dev:
	@$(PYTHON) scripts/bootstrap.py dev --torch $(TORCH)
system: install-dev
	@sh scripts/ensure_system.sh
clean:  ## remove the environment and every cache
	rm -rf .venv .ready-* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build *.egg-info
