# Vedette. `make help` lists what there is; everything a target needs is set up
# by the target itself, inside the checkout (build/, node_modules/) and the
# usual caches of Go and npm.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

GO       ?= go
BIN      := build/bin
RUNTIME  := build/onnxruntime/libonnxruntime.so.1
PAGES    := controlplane/dashboard
ASSETS   := $(PAGES)/assets/vendor/.stamp
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  := -s -w -X main.version=$(VERSION)
LINT     := $(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
# gRPC's own tracing pages reach for html/template, whose use of reflection keeps
# the linker from dropping anything: a quarter of the agent's program.
TAGS     := grpcnotrace
PURE     := $$($(GO) list -f '{{if .GoFiles}}{{.ImportPath}}{{end}}' ./... | grep -v -e /agent/onnx$$ -e /cmd/vedette-agent$$)
# A program with the race detector sleeps a second when it ends, and the tests
# start hundreds.
GORACE   := atexit_sleep_ms=0
# They leave to a run without the race detector what it makes ten times as slow.
LONG     := ./agent/outbox ./agent/updater ./protocol/delta ./controlplane/rollout ./cmd/vedette-sim ./cmd/e2e

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | expand -t 16

.PHONY: demo
demo: build ## run the whole story with eight devices and stay up until Ctrl-C
	@$(BIN)/vedette demo run

.PHONY: demo-check
demo-check: build ## run the story, assert every step, print the numbers as JSON
	@$(BIN)/vedette demo check

.PHONY: test
test: build ## all tests: race and shuffle, then without cgo the long schedules and the end-to-end runs
	GORACE=$(GORACE) $(GO) test -race -shuffle=on -timeout 15m $$($(GO) list ./... | grep -v /cmd/e2e$$)
	CGO_ENABLED=0 $(GO) build $(PURE)
	CGO_ENABLED=0 $(GO) test -shuffle=on -timeout 15m $(LONG)
	cd cmd/e2e/mlflow && VEDETTE_CONTROL=$(CURDIR)/$(BIN)/vedette-control CGO_ENABLED=0 $(GO) test ./...

.PHONY: test-full
test-full: build ## what takes longer: fuzzing, long schedules, deep model checks
	VEDETTE_FULL=1 GORACE=$(GORACE) $(GO) test -race -shuffle=on -timeout 60m ./...
	deploy/fuzz.sh 30s

.PHONY: bench-agent
bench-agent: build ## measure the agent against C, Node.js and its bounds; prints a table (BENCH=-h for more)
	@$(GO) run ./deploy/bench $(BENCH) agent

.PHONY: bench-fleet
bench-fleet: build ## put 10,000 simulated agents on one server; prints a table (BENCH=-h for more)
	@$(GO) run ./deploy/bench $(BENCH) fleet

.PHONY: bench-registry
bench-registry: build ## 100,000 MLflow runs, 10 M predictions a day, 2 GB artifacts; prints a table (BENCH=-h for more)
	@$(GO) run ./deploy/bench $(BENCH) registry

.PHONY: lint
lint: tools ## style, import rules, freshness of generated code
	$(LINT) run ./...
	cd protocol && $(GO) generate ./...
	git diff --exit-code -- protocol || { echo "protocol: generated code was not fresh: run 'make generate' and commit it" >&2; exit 1; }

.PHONY: generate
generate: tools ## write the generated code again
	cd protocol && $(GO) generate ./...

.PHONY: build
build: setup ## the programs, in build/bin
	@echo "building the programs" >&2
	@CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/ ./cmd/vedette ./cmd/vedette-control ./cmd/vedette-sim
	@CGO_ENABLED=1 $(GO) build -trimpath -tags $(TAGS) -ldflags '$(LDFLAGS)' -o $(BIN)/ ./cmd/vedette-agent

.PHONY: package
package: tools ## the agent's packages, deb and rpm for amd64 and arm64, in build/package
	@GO=$(GO) deploy/packages/build.sh build/package

.PHONY: test-package
test-package: build ## install, upgrade, downgrade, remove and purge packages in a Debian of their own; run the arm64 agent
	@deploy/packages/tools.sh
	@GO=$(GO) deploy/packages/build.sh build/package
	VEDETTE_PACKAGES=$(CURDIR)/build/package $(GO) test -count=1 -timeout 20m -v -run 'Package|Arm64' ./deploy/packages ./cmd/vedette-agent ./cmd/e2e

.PHONY: setup
setup: tools $(RUNTIME) $(ASSETS) ## fetch ONNX Runtime and the pages' assets (pinned)

$(RUNTIME): deploy/onnxruntime/fetch.sh | tools
	@deploy/onnxruntime/fetch.sh $(@D)
	@touch $@

$(ASSETS): $(PAGES)/package.json $(PAGES)/package-lock.json | tools
	@echo "fetching the pages' libraries" >&2
	@cd $(PAGES) && npm ci --silent --ignore-scripts --no-audit --no-fund && npm run --silent assets
	@touch $@

.PHONY: tools
tools: # say at once what is missing and how to get it
	@.ci/tools

.PHONY: clean
clean: ## remove what was built and fetched
	rm -rf build $(PAGES)/node_modules $(PAGES)/assets/vendor
