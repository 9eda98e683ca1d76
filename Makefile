# Two commands on a fresh machine with git, make and Python 3.11: `make demo`, `make test`.

PYTHON ?= python3
UV := $(shell command -v uv 2>/dev/null)
BIN := .venv/bin
READY := .venv/.ready

# Where versions come from is this machine's matter; the locks must not know it.
COMPILE_GROUP := env -u PIP_FIND_LINKS -u UV_FIND_LINKS uv pip compile --quiet \
	--universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	--no-emit-index-url --no-emit-find-links
COMPILE := $(COMPILE_GROUP) pyproject.toml

# One ring of tests after another, with `make -j` too.
.NOTPARALLEL:

.PHONY: help demo demo-bgp up stack-demo down test-stack test test-unit ring-unit \
	ring-repo ring-integration ring-readers ring-quiet test-readers fuzz fuzz-mitigator \
	fuzz-documents long-run lint format wheel mutation sbom \
	picture bench lock clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 25

demo: $(READY) ## show how notifications become events, with a broker of its own
	$(BIN)/fnm-bus demo

demo-bgp: $(READY) ## show a route in BIRD and its withdrawal (needs Debian's bird2)
	$(BIN)/fnm-bus demo-bgp

up: ## start the whole chain in containers, and say what to look at
	docker compose up --detach --build --wait
	@cat docker/look.txt

stack-demo: ## show how an attack becomes a route in the containers, with times
	$(PYTHON) docker/demo.py $(if $(DETECTOR),--detector)

down: ## remove the containers and all that they keep
	docker compose --profile '*' down --volumes --remove-orphans

test-stack: $(READY) ## prove the containers: start, upgrade, and each part's death
	$(BIN)/pytest tests/stack --timeout 900

# Most tests wait for other processes, so more of them run than there are cores. The
# files marked `quiet` use all cores, or count system calls, and run one at a time.
WORKERS ?= 6
SERVICES := tests/contract tests/integration tests/faults
PYTEST := $(BIN)/pytest --dist loadfile --no-loadscope-reorder

test: ring-unit ring-repo ring-integration ring-readers ring-quiet ## run all tests, against a real Kafka and a real registry

test-unit: ring-unit ## run the tests that need no process and no socket

ring-unit: $(READY)
	@echo "== unit: no process, no socket"
	@$(PYTEST) -n auto tests/unit

ring-repo: $(READY)
	@echo "== repo: documents, packages, schemas, locks"
	@$(PYTEST) -n auto tests/repo

ring-integration: $(READY)
	@command -v mvn >/dev/null || { \
	  [ -n "$$FNM_BUS_TEST_KAFKA" ] && [ -n "$$FNM_BUS_TEST_REGISTRY" ]; } || \
	  echo "Maven (mvn) is not installed: tests that need a real Kafka or a real" \
	       "registry are left out, and listed at the end."
	@echo "== integration: real services, $(WORKERS) at a time"
	@$(PYTEST) -n $(WORKERS) -m "not quiet" $(SERVICES)

ring-readers: $(READY)
	@echo "== readers: programs of other projects, those that this machine has"
	@$(BIN)/pytest tests/readers --readers=cached

test-readers: $(READY) ## run all readers and SQL engines, and fetch what they need (1.1 GB)
	CI=true $(BIN)/pytest tests/readers

ring-quiet: $(READY)
	@echo "== quiet: real services, one at a time"
	@$(PYTEST) -m quiet $(SERVICES)

fuzz: fuzz-documents fuzz-mitigator $(READY) ## search for decisions that break a promise, FUZZ_SECONDS=600 long
	FUZZ_SECONDS=$(or $(FUZZ_SECONDS),600) $(BIN)/pytest -s -q -p no:cacheprovider \
	  tests/integration/mitigator/test_decision_promises.py

fuzz-documents: $(READY) ## send damaged documents through parser, hook, relay and broker
	FUZZ_SECONDS=$(or $(FUZZ_SECONDS),600) $(BIN)/pytest -s -q -p no:cacheprovider \
	  tests/unit/event/test_fuzz_documents.py tests/faults/test_fuzz_relay.py \
	  tests/faults/test_fuzz_native_hook.py

fuzz-mitigator: $(READY) ## send odd records to a running mitigator, FUZZ_SECONDS=600 long
	FUZZ_SECONDS=$(or $(FUZZ_SECONDS),600) $(BIN)/pytest -s -q -p no:cacheprovider \
	  tests/faults/test_fuzz_mitigator.py

lint: $(READY) ## check style, types, imports and generated files
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python schemas/generate.py --check
	$(patsubst %,$(BIN)/python % --check,$(wildcard docs/generate.py))

format: $(READY) ## rewrite the code as `lint` wants it
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# A wheel for any machine; one with the compiled hook for this machine if musl-gcc is
# installed; with ZIG=1 those for x86_64 and aarch64. musl's static binary runs on every
# Linux. zig stays out of the environment, as mutmut does.
ZIGLANG := $(shell sed -n 's/^zig = \["\(.*\)"\]/\1/p' pyproject.toml)
WHEEL := $(BIN)/python -m hatchling build -t wheel -d dist
wheel: $(READY) ## build the package in dist/, ZIG=1 with compiled hooks for two machines
	$(WHEEL)
ifdef ZIG
ifneq ($(UV),)
	uv pip install --quiet --python $(BIN)/python --target .zig "$(ZIGLANG)"
else
	$(BIN)/python -m pip install --quiet --upgrade --target .zig "$(ZIGLANG)"
endif
	for machine in x86_64 aarch64; do \
	  FNM_BUS_HOOK_CC="env PYTHONPATH=$(CURDIR)/.zig $(abspath $(BIN))/python -m ziglang cc \
	    -target $$machine-linux-musl" $(WHEEL) || exit; \
	done
else ifneq ($(shell command -v musl-gcc),)
	FNM_BUS_HOOK_CC=musl-gcc $(WHEEL)
endif

# mutmut stays out of the environment, whose versions are locked.
MUTMUT := $(shell sed -n 's/^mutation = \["\(.*\)"\]/\1/p' pyproject.toml)
mutation: $(READY) ## change the policy's code, and list changes that no unit test notices
ifneq ($(UV),)
	uv pip install --quiet --python $(BIN)/python --target .mutation "$(MUTMUT)"
else
	$(BIN)/python -m pip install --quiet --upgrade --target .mutation "$(MUTMUT)"
endif
	PYTHONPATH=$(CURDIR):$(CURDIR)/.mutation $(BIN)/python -m mutmut run
	PYTHONPATH=$(CURDIR):$(CURDIR)/.mutation $(BIN)/python -m mutmut results

# An environment as the image has it; the tool stands beside it and lists it.
SBOM := $(shell sed -n 's/^sbom = \["\(.*\)"\]/\1/p' pyproject.toml)
sbom: $(READY) ## list what is installed, with licences: dist/fnm-bus.cdx.json (CycloneDX)
	rm -rf .sbom
	$(PYTHON) -m venv .sbom/tool
	.sbom/tool/bin/python -m pip install --quiet "$(SBOM)"
	$(PYTHON) -m venv --without-pip .sbom/image
	$(BIN)/python -m hatchling build -t wheel -d .sbom/wheel >/dev/null
	.sbom/tool/bin/python -m pip --python .sbom/image/bin/python install --quiet \
	  --require-hashes -r requirements/image.txt
	.sbom/tool/bin/python -m pip --python .sbom/image/bin/python install --quiet \
	  --no-deps .sbom/wheel/*.whl
	mkdir -p dist
	env -u PYTHONPATH .sbom/tool/bin/cyclonedx-py environment --output-reproducible \
	  --output-file dist/fnm-bus.cdx.json .sbom/image/bin/python
	rm -rf .sbom

long-run: $(READY) ## run the whole chain for an hour under fuzzed events and kills
	PYTHONPATH=$(CURDIR)/tests $(BIN)/python tests/long_run.py

picture: $(READY) ## record `make demo-bgp` as docs/demo-bgp.svg
	$(BIN)/python docs/picture.py

bench: $(READY) ## measure against the rivals; results in benchmarks/results
	$(BIN)/python benchmarks/run.py

lock: ## resolve the dependencies again (needs uv)
	$(COMPILE) -o requirements/runtime.txt >/dev/null
	$(COMPILE) --extra exabgp --extra notify -c requirements/runtime.txt -o requirements/image.txt >/dev/null
	$(COMPILE) --group dev -c requirements/image.txt -o requirements/dev.txt >/dev/null
	$(COMPILE_GROUP) --group build -c requirements/dev.txt -o requirements/build.txt >/dev/null

clean: ## remove what these targets made
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis dist \
	  .mutation mutants .sbom .zig
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment: as the lock says, to the hash. Made anew when the lock changes.
$(READY): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is older than 3.11: name another one, make PYTHON=python3.11 …"; exit 1; }
ifneq ($(UV),)
	@echo "Making .venv with uv, as requirements/dev.txt says."
	uv venv --quiet --allow-existing --python "$$(command -v $(PYTHON))" .venv
	uv pip sync --quiet --python $(BIN)/python --require-hashes requirements/dev.txt
	uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
else
	@echo "Making .venv with venv and pip, as requirements/dev.txt says (uv is quicker)."
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
endif
	@touch $@
