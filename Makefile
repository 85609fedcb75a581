# Everything a developer runs; `make help` lists it. Tools are built from the
# pinned versions in tools/ into .bin; nothing is installed outside the checkout
# except by `make deps`.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

BIN     := $(CURDIR)/.bin
MODULES := $(shell sed -n 's|^[[:space:]]*\./||p' go.work)
PKGS    := $(addsuffix /...,$(addprefix ./,$(MODULES)))
ARGS    ?=

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

.PHONY: tools
tools: $(BIN)/.tools ## Build the pinned tools into .bin

$(BIN)/.tools: tools/buf/go.mod tools/gen/go.mod tools/lint/go.mod tools/restjson/go.mod $(wildcard tools/restjson/*.go)
	@mkdir -p $(BIN)
	@echo "building tools/restjson" && GOWORK=off go -C tools/restjson build -o $(BIN)/protoc-gen-restjson .
	@for t in buf gen lint; do echo "building tools/$$t"; GOBIN=$(BIN) GOWORK=off go -C tools/$$t install tool; done
	@touch $@

$(BIN)/ferretdb: tools/ferretdb/go.mod tools/ferretdb/main.go
	@mkdir -p $(BIN)
	@echo "building tools/ferretdb" && GOWORK=off go -C tools/ferretdb build -o $@ .

.PHONY: ferretdb
ferretdb: $(BIN)/ferretdb ## Build the MongoDB wire server that the tests use

WEB := tools/web/node_modules/.package-lock.json

$(WEB): tools/web/package-lock.json
	@command -v npm >/dev/null || { echo "npm is missing: make deps installs it, with node" >&2; exit 1; }
	@echo "installing tools/web" && cd tools/web && npm ci --loglevel=error
	@touch $@

.PHONY: generate
generate: tools $(WEB) ## Generate Go, REST's JSON, OpenAPI and the TypeScript client's types from proto/
	$(BIN)/buf format -w proto
	find gen/turumba -name '*.go' -delete 2>/dev/null || true
	rm -rf $(BIN)/openapi gateway/rest/answers_*gen.go
	$(BIN)/buf generate
	find $(BIN)/openapi -name '*.json' | sort | xargs $(BIN)/openapiv3-merge > $(BIN)/openapi.merged.json
	GOWORK=off go -C tools/openapi run . < $(BIN)/openapi.merged.json > $(BIN)/openapi.json
	mv $(BIN)/openapi.json gen/openapi/openapi.json
	cd tools/web && npm run --silent types

.PHONY: openapi
openapi: $(WEB) ## Lint the OpenAPI document (redocly recommended, spectral:oas)
	cd tools/web && npm run --silent lint

.PHONY: verify
verify: generate ## Fail on any drift: generated code, tidy, format, contract, import walls
	$(BIN)/buf lint
	@if git rev-parse -q --verify origin/main >/dev/null && git cat-file -e origin/main:proto 2>/dev/null; then \
		$(BIN)/buf breaking proto --against '.git#ref=origin/main,subdir=proto'; \
	else echo "buf breaking: no earlier contract on origin/main to compare with"; fi
	@for m in $(MODULES) tools/openapi tools/restjson tools/ferretdb; do (cd $$m && GOWORK=off go mod tidy); done
	@test -z "$$(gofmt -l $(MODULES) tools/openapi tools/restjson tools/ferretdb | tee /dev/stderr)"
	@for m in $(MODULES); do echo "GOWORK=off build and vet $$m"; (cd $$m && GOWORK=off go build ./... && GOWORK=off go vet ./...); done
	@drift=$$(git status --porcelain); if [ -n "$$drift" ]; then echo "the checkout differs from what was committed:"; echo "$$drift"; git diff | head -100; exit 1; fi

.PHONY: lint
lint: tools ## Run golangci-lint over every module
	@for m in $(filter-out gen,$(MODULES)); do echo "lint $$m"; (cd $$m && $(BIN)/golangci-lint run --config $(CURDIR)/.golangci.yml ./...); done

.PHONY: test
test: ferretdb ## Run every test on real servers; PG=stock: those with a database, on PostgreSQL as distributed
ifeq ($(PG),stock)
	PGTEST=stock ./tools/test.sh $$(./tools/with-database.sh $(PKGS))
else
	./tools/test.sh $(PKGS)
endif

.PHONY: race
race: ferretdb ## The same with the race detector
	./tools/test.sh -race $(PKGS)

.PHONY: demo
demo: ## Send a demo group message to the simulator: make demo ARGS="--tour"
	@mkdir -p $(BIN) && go build -o $(BIN)/turumba ./cmd/turumba && exec $(BIN)/turumba demo $(ARGS)

.PHONY: up
up: ## Serve everything in one process on localhost
	@mkdir -p $(BIN) && go build -o $(BIN)/turumba ./cmd/turumba && exec $(BIN)/turumba up $(ARGS)

.PHONY: bench
bench: ## Measure the hot paths beside their references in one run
	go test -run '^$$' -bench . -benchtime 1x -timeout 20m $(ARGS) ./e2e/bench

.PHONY: chaos
chaos: ## Every fault of docs/chaos.md in full; kill -9 in sends of 20 000 and in a small import
	CI=true CHAOS=full CHAOS_RECIPIENTS=20000 CHAOS_KILLS=10 go test -count=1 -parallel 4 -timeout 30m -v $(ARGS) ./e2e/chaos

.PHONY: chaos-import
chaos-import: ## An import of 1 000 000 contacts, without a kill and with ten
	CI=true IMPORT_ROWS=1000000 IMPORT_KILLS=10 go test -count=1 -timeout 30m -v -run TestKillImport $(ARGS) ./e2e/chaos

.PHONY: chaos-quick
chaos-quick: ## The quick faults, small and with a fixed seed; `make test` has a few of them
	CI=true CHAOS=quick go test -count=1 -timeout 10m -v -run 'TestFaults' $(ARGS) ./e2e/chaos

.PHONY: security
security: ## Attack the whole mesh: tenant and role matrices, tokens, spoofing, fuzzing; one line per suite
	SECURITY=full CI=true go -C e2e/security test -count=1 -timeout 30m $(ARGS)

.PHONY: inputs
inputs: ferretdb ## What people have in their files, phones and mail servers: the tests of docs/inputs.md
	./tools/inputs.sh

.PHONY: fuzz
fuzz: ## Fuzz everything that reads bytes from outside, FUZZTIME (30s) each
	./tools/fuzz.sh $(or $(FUZZTIME),30s)

.PHONY: deps
deps: ## Install the servers that the tests use, where they are missing (Debian, root)
	./tools/deps.sh
