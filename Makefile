# Each target sets up what it needs first.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
FUZZ   ?= 100000
STAMP  := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help bpf demo test check format bench coverage fuzz soak release docs clean

help: ## show this help
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml scripts/setup
	@PYTHON="$(PYTHON)" scripts/setup "$(VENV)"
	@touch $@

bpf: $(STAMP) ## build the eBPF programs if a source has changed
	@$(BIN)/python -m relevo.planes.ebpf.build || echo "setup: without them the ebpf plane is left out" >&2

demo: bpf ## run and check the article's cluster
	@$(BIN)/relevo lab drill --details --speed-up 10 $(DRILL) examples/article/master.conf examples/article/backup.conf

test: bpf ## run every test this machine can run
	@scripts/test "$(BIN)"

check: $(STAMP) ## lint, types and the import contract, without tests
	@$(BIN)/ruff format --check src tests bench packaging
	@$(BIN)/ruff check src tests bench packaging
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(STAMP) ## format the code
	@$(BIN)/ruff format src tests bench packaging
	@$(BIN)/ruff check --fix --quiet src tests bench packaging

bench: bpf ## measure beside keepalived and HAProxy; prints ratios
	@$(BIN)/python bench/run.py $(BENCH)

coverage: $(STAMP) ## measure how the unit tests cover the core packages
	@$(BIN)/coverage run -m pytest -q tests/unit && $(BIN)/coverage report --include 'src/relevo/model/*,src/relevo/config/*,src/relevo/wire/*,src/relevo/machines/*,src/relevo/schedulers/*'

fuzz: $(STAMP) ## feed every parser corrupt input: make fuzz FUZZ=1000000
	@RELEVO_FUZZ=$(FUZZ) $(BIN)/python -m pytest -q -s tests/unit/config/test_fuzz.py tests/unit/wire/test_fuzz.py

soak: bpf ## faults of every kind for hours: make soak SOAK="--seeds 1-4 --minutes 30"
	@$(BIN)/python -m tests.soak $(SOAK)

release: $(STAMP) ## build what is released, the same bytes on any machine
	@PYTHON="$(PYTHON)" packaging/release

docs: $(STAMP) ## write the generated reference pages anew
	@$(BIN)/python scripts/reference

clean: ## remove everything that was set up or built
	@rm -rf $(VENV) build dist src/*.egg-info src/relevo/planes/ebpf/objects .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage bench/results
