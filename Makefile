# Every command of the project. `make` alone lists them.
# Two environments: .venv for the project, .venv-triton for the local Triton (which needs numpy < 2).

# The Python of each is the first of these minor versions that is here; PYTHON=… and TRITON_PYTHON=… choose
# one. Triton's needs numpy 1.26, which has no later one.
MINORS := 11 12 13 14
TRITON_MINORS := 11 12
BIN := .venv/bin
# It shows how far it is, except in the log of a CI.
PIP_INSTALL := -m pip install --disable-pip-version-check $(if $(CI),--quiet)
# PyTorch for CPUs, 190 MB to download, from its own page or another that has the same files, by their hashes; TORCH=cuda
# takes PyPI's, which on Linux is 2.7 GB with CUDA (the sizes in `uv pip compile --format pylock.toml`).
TORCH ?= cpu
TORCH_WHEELS ?= https://download.pytorch.org/whl/cpu/torch/
SYSTEM := $(shell uname -s)
ifeq ($(TORCH)-$(SYSTEM),cpu-Linux)
TORCH_SOURCE := --retries 1 --find-links $(TORCH_WHEELS) --require-hashes --no-deps -r requirements/torch-cpu.txt
endif
# What computes: triton, onnxruntime in the gateway's process, or auto, Triton where it can be had.
ENGINE ?= $(if $(filter Linux,$(SYSTEM)),auto,onnxruntime)
WHY = $(if $(filter auto,$(ENGINE)),$(COMMA) which cannot be had here as said above)
COMMA := ,
AGAIN := $(MAKE) --no-print-directory
# onnxruntime uploads usage data by default; nothing that this project starts does.
export ORT_DISABLE_TELEMETRY := 1

.PHONY: help
help: ## List every command
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

.PHONY: serve
serve: .venv/.serve ## Start the gateway on http://127.0.0.1:8000, with a local Triton where there can be one
	@case "$(ENGINE)" in auto|triton|onnxruntime) ;; \
	  *) echo "ENGINE is '$(ENGINE)'; auto, triton or onnxruntime is expected" >&2; exit 2;; esac; \
	if [ "$(ENGINE)" != onnxruntime ] && $(AGAIN) .venv-triton/.triton; then \
	  exec $(BIN)/python -m server --with-triton; \
	elif [ "$(ENGINE)" != triton ] && $(AGAIN) .venv/.onnxruntime; then \
	  echo "Serving without Triton$(WHY): ONNX Runtime computes in the gateway's process"; \
	  exec $(BIN)/python -m server --engine onnxruntime; \
	else exit 1; fi

.PHONY: test
test: lint ## Lint, type-check and run every test but those of the containers
	$(BIN)/python -m pytest --ignore=tests/compose

.PHONY: lint
lint: .venv/.test .venv-triton/.triton ## Lint and type-check everything
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The tests of one room install only what that room needs.
ROOMS := contracts server export reference loadtest deploy
.PHONY: $(ROOMS:%=test-%)
$(ROOMS:%=test-%): test-%: .venv/.test-% .venv-triton/.triton
	$(BIN)/python -m pytest $(PARALLEL) tests/$*
# Tests of servers mostly wait for processes: five files at a time keep two cores busy. The long files do not come last.
test-server: PARALLEL := --numprocesses 5 --dist loadfile --no-loadscope-reorder
test-server: ## Run the tests of one room; also test-contracts, -export, -reference, -loadtest, -deploy

.PHONY: coverage
coverage: .venv/.test .venv-triton/.triton ## Run every test and print which lines they reached, in the servers' processes too
	$(BIN)/python -m pytest --ignore=tests/compose --cov --cov-report=term

.PHONY: up
up: ## Build and start the containers, wait until they serve on http://127.0.0.1:8000
	docker compose up --build --detach --wait

.PHONY: down
down: ## Stop and remove the containers and their networks
	docker compose --profile '*' down --remove-orphans

.PHONY: reload
reload: ## Let the Triton in its container read the model repository again, losing no request
	deploy/reload.sh

.PHONY: compose-test
compose-test: .venv/.test .venv-triton/.triton ## Run the tests of the containers; needs a Docker Engine
	$(BIN)/python -m pytest tests/compose

.PHONY: bench
bench: .venv/.test .venv-triton/.triton ## Measure what a request costs, beside a plain server (12 minutes)
	$(BIN)/python -m loadtest bench serving

.PHONY: proof
proof: .venv/.test .venv-triton/.triton ## Follow a real classifier's accuracy from PyTorch to HTTP: make proof PHOTOS=folder (of photographs, or ImageNet's)
	$(BIN)/python -m tests.proof $(PHOTOS) $(PROOF)

.PHONY: export
export: .venv/.export ## Install what `python -m export` needs (PyTorch, ONNX)

.PHONY: heic
heic: .venv/.heic ## Let the gateway and training read HEIC, as iPhones save photos (LGPL and GPL libraries)

.PHONY: reference
reference: .venv/.reference ## Install what `python -m reference` needs (JAX)

# The packages that it names bring much that its tests do without.
.PHONY: jax2onnx
jax2onnx: .venv/.test requirements/jax2onnx.txt ## Let the tests make ONNX of the JAX program without PyTorch as well
	$(BIN)/python $(PIP_INSTALL) --require-hashes --no-deps -r requirements/jax2onnx.txt

.PHONY: loadtest
loadtest: .venv/.loadtest .venv/.export .venv/.serve .venv-triton/.triton ## Install what `python -m loadtest` needs (locust, matplotlib)

.PHONY: format
format: .venv/.test ## Format the code and mend what the linter can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: clean
clean: ## Remove both environments and every cache
	rm -rf .venv .venv-triton .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One that was asked for is compared with the one that is there.
.venv/bin/python: $(if $(PYTHON),look)
	@.ci/make-venv .venv '$(MINORS)' $(PYTHON)

.venv-triton/bin/python: $(if $(TRITON_PYTHON),look)
	@.ci/make-venv .venv-triton '$(TRITON_MINORS)' $(TRITON_PYTHON)

.PHONY: look
look:

# The stamp of each set is renewed when its list or the pins change.
.venv/.%: requirements/%.txt requirements/pytest.txt requirements/serve.txt requirements/constraints.txt .venv/bin/python
	$(BIN)/python $(PIP_INSTALL) -r $< -c requirements/constraints.txt
	@touch $@

# What serves is held to the hashes of its lock.
.venv/.serve .venv/.heic .venv/.onnxruntime: .venv/.%: requirements/locked/%.txt .venv/bin/python
	$(BIN)/python $(PIP_INSTALL) --require-hashes -r $<
	@touch $@

.venv-triton/.triton: requirements/locked/triton.txt .venv-triton/bin/python
	.venv-triton/bin/python $(PIP_INSTALL) --require-hashes --no-deps -r $<
	@touch $@

# PyTorch comes first, so that nothing else brings the one with CUDA along.
.venv/.export .venv/.test .venv/.test-export .venv/.test-loadtest .venv/.test-deploy: .venv/.torch
.venv/.torch: requirements/constraints.txt requirements/torch-cpu.txt .venv/bin/python
	$(BIN)/python $(PIP_INSTALL) $(or $(TORCH_SOURCE),-c requirements/constraints.txt torch)
	@touch $@

.PHONY: arm64
arm64: ## Answer an image on an emulated arm64 machine, with both engines (5 minutes; root, and Debian's debootstrap, qemu-user-static, binfmt-support)
	.ci/arm64 .arm64

.PHONY: docs
docs: .venv/.docs ## Build the documentation as a site in site/, and check every link in it
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	$(BIN)/lychee --offline --include-fragments --no-progress --index-files index.html --root-dir $(CURDIR)/site 'site/**/*.html' README.md CONTRIBUTING.md SECURITY.md

# Packages of the locks with a known hole, but for what requirements/accepted.txt accepts, with its reason.
.PHONY: audit
audit: .venv/.lock ## Ask PyPI's list of known holes about every package that serves
	for lock in requirements/locked/*.txt; do \
	  $(BIN)/uv tool run pip-audit@2.10.1 --strict --disable-pip --require-hashes -r $$lock \
	    $$(sed -n 's/^\([A-Z][^ ]*\) .*/--ignore-vuln \1/p' requirements/accepted.txt) || failed=1; \
	done; test -z "$$failed"

.PHONY: lock
lock: .venv/.lock ## Write requirements/locked/ anew after a change of requirements/
	requirements/lock.sh $(BIN)/uv
