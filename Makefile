# Regent. A bare `make` prints this help. Every target runs from the folder of this file
# (`make -C DIR TARGET` from elsewhere) and needs nothing but Go, make and, for the tests
# and the demo, PostgreSQL, which `make setup` installs on Debian when run by root.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# How many packages the go command builds and tests at once.
P ?= 2
# Arguments for the binary behind demo, sim, chaos, soak and bench: `make demo ARGS=--exit`.
ARGS ?=
# Where the demo's agents keep their state: raft (in themselves), etcd3 or consul.
DCS ?= raft
# What Patroni and Regent are compared on, and where storms are.
STORE ?= etcd3
FUZZTIME ?= 10s
MINUTES ?= 60

BASE := 0.1.0-dev
COMMIT := $(shell git rev-parse --short=10 HEAD 2>/dev/null || true)
VERSION ?= $(BASE)$(if $(COMMIT),+$(COMMIT))

GOBUILD := CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(VERSION)'
STATICCHECK := go tool -modfile=internal/tools/go.mod staticcheck
# Only the commands that exist.
COMMANDS := $(patsubst cmd/%/main.go,%,$(wildcard cmd/*/main.go))

ifeq ($(wildcard go.mod),)
$(error run this as `make -C FOLDER-OF-THE-MAKEFILE TARGET`)
endif

##@ Use
.PHONY: help
help: ## print this help
	@awk -f scripts/help.awk Makefile

.PHONY: demo
demo: setup build ## three nodes, a killed primary, a fail-over before your eyes (ARGS=--exit ends by itself; DCS=etcd3, DCS=consul)
	@$(call have,regent); store=(); \
	case '$(DCS)' in \
	etcd3) program=$$(scripts/etcd-server.sh); store=(--dcs etcd3 --dcs-program "$$program");; \
	consul) program=$$(scripts/consul-server.sh); store=(--dcs consul --dcs-program "$$program");; \
	*) store=(--dcs '$(DCS)');; \
	esac; exec bin/regent demo "$${store[@]}" $(ARGS)

.PHONY: build
build: $(COMMANDS:%=bin/%) ## static, stripped binaries into bin/

# The go command knows what is stale, so every binary is asked for each time.
bin/%: FORCE
	@mkdir -p bin
	@$(GOBUILD) -o $@ ./cmd/$*

.PHONY: setup
setup: ## install what tests and demo need (Debian, as root), or say exactly what is missing
	@scripts/setup.sh

##@ Check
.PHONY: test
test: ## all that CI runs: setup, lint, architecture, unit, race and live tests (ARGS=section…)
	@P=$(P) scripts/test.sh $(ARGS)

.PHONY: unit
unit: ## the fast tests only (under a minute)
	@go test -short -p $(P) ./...

.PHONY: race
race: ## tests under the race detector
	@CGO_ENABLED=1 go test -race -p $(P) -timeout 20m $(ARGS) ./...

.PHONY: lint
lint: fmt-check vet staticcheck ## formatting, go vet, staticcheck

.PHONY: fmt
fmt: ## format all Go files
	@scripts/gofiles.sh | xargs -0 gofmt -w

.PHONY: fmt-check
fmt-check:
	@bad="$$(scripts/gofiles.sh | xargs -0 gofmt -l)"; \
	if [[ -n "$$bad" ]]; then printf 'not formatted (run `make fmt`):\n%s\n' "$$bad" >&2; exit 1; fi

.PHONY: vet
vet: ## go vet
	@go vet ./...

.PHONY: staticcheck
staticcheck: ## staticcheck, at the version pinned in internal/tools/go.mod
	@$(STATICCHECK) ./...

.PHONY: archtest
archtest: ## the rules of the architecture: who may import what, purity, size, documentation
	@go test -count=1 ./internal/archtest/

.PHONY: generate
generate: ## rewrite the generated files (documents, tables, diagrams)
	@go generate ./...

.PHONY: check-generated
check-generated: ## regenerate, and fail if anything changed
	@scripts/check-generated.sh

.PHONY: fuzz
fuzz: ## each fuzz target for FUZZTIME (10s)
	@scripts/fuzz.sh $(FUZZTIME)

.PHONY: cover
cover: ## coverage of the fast tests into bin/cover.html
	@mkdir -p bin
	@go test -short -p $(P) -coverprofile=bin/cover.out ./...
	@go tool cover -html=bin/cover.out -o bin/cover.html
	@go tool cover -func=bin/cover.out | tail -n 1

##@ Prove
.PHONY: sim chaos chaos-slow chaos-patroni soak storm bench
sim: build ## the simulator: many seeded worlds in virtual time
	@$(call have,regent-chaos); exec bin/regent-chaos sim $(ARGS)
chaos: build ## the failure table, replayed on real clusters and all stores, into docs/failure-table.md
	@scripts/setup.sh servers
	@$(call have,regent-chaos); etcd=$$(scripts/etcd-server.sh); consul=$$(scripts/consul-server.sh); \
	exec bin/regent-chaos live --server etcd3="$$etcd" --server consul="$$consul" \
		--report docs/failure-table.md --json bin/failure-table.json $(ARGS)
chaos-slow: build ## the same with the document's settings, ttl 30: hours, into docs/failure-table-slow.md
	@scripts/setup.sh servers
	@$(call have,regent-chaos); etcd=$$(scripts/etcd-server.sh); consul=$$(scripts/consul-server.sh); \
	exec bin/regent-chaos live --slow --server etcd3="$$etcd" --server consul="$$consul" \
		--report docs/failure-table-slow.md --json bin/failure-table-slow.json $(ARGS)
chaos-patroni: build ## its rows on etcd by Regent and by Patroni, side by side, into docs/failure-table-patroni.md
	@scripts/setup.sh servers
	@$(call have,regent-chaos); exec bin/regent-chaos live --beside "$$(command -v patroni)" --server etcd3="$$(scripts/etcd-server.sh)" \
		--report docs/failure-table-patroni.md --json bin/failure-table-patroni.json $(ARGS)
soak: setup build ## random faults for MINUTES (60) under a writer and a judge, into docs/robustness.md
	@$(call have,regent-chaos); exec bin/regent-chaos soak --minutes $(MINUTES) --report docs/robustness.md $(ARGS)
storm: setup build ## random faults that overlap, on network hosts, for MINUTES (60; STORE=raft, etcd3, consul)
	@scripts/setup.sh servers
	@$(call have,regent-chaos); server=(); \
	case '$(STORE)' in \
	etcd3) server=(--server "etcd3=$$(scripts/etcd-server.sh)");; \
	consul) server=(--server "consul=$$(scripts/consul-server.sh)");; \
	esac; exec bin/regent-chaos storm --store '$(STORE)' --minutes $(MINUTES) "$${server[@]}" $(ARGS)
bench: setup build ## outage and loss of every kind of fail-over, measured, into docs/performance.md
	@$(call have,regent-chaos); exec bin/regent-chaos bench --report docs/performance.md $(ARGS)

.PHONY: compare
compare: build ## the same faults done to Patroni and to Regent (STORE=etcd3, consul), into docs/comparison-STORE.md
	@scripts/setup.sh servers
	@$(call have,regent-chaos); \
	case '$(STORE)' in consul) server=$$(scripts/consul-server.sh);; *) server=$$(scripts/etcd-server.sh);; esac; \
	exec bin/regent-chaos compare --store '$(STORE)' --server "$$server" --report 'docs/comparison-$(STORE).md' $(ARGS)

.PHONY: conformance
conformance: ## the store's contract on every backend, as a table (REGENT_CONFORMANCE_STORM=60s: longer faults)
	@dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; code=0; \
	REGENT_CONFORMANCE="$$dir" go test -count=1 -p 1 -run '^TestConformance' ./dcs/... || code=1; \
	go run ./scripts/conformance "$$dir" && exit "$$code"

.PHONY: timing
timing: ## record anew how late real etcd and Consul are, which the model's timing is compared with
	@scripts/setup.sh servers
	@mkdir -p dcs/dcstest/testdata/timing
	@REGENT_TIMING="$(CURDIR)/dcs/dcstest/testdata/timing" go test -count=1 -p 1 -v -run '^TestTimingOf' ./dcs/etcd3 ./dcs/consul
	@go test -count=1 -v -run '^TestModelsTiming' ./dcs/dcstest

.PHONY: interop
interop: ## clusters shared with Patroni, on etcd and Consul: who leads, what is done, what comes of it, as a table
	@scripts/setup.sh servers
	@dir=$$(mktemp -d); chmod 1777 "$$dir"; trap 'rm -rf "$$dir"' EXIT; code=0; \
	REGENT_INTEROP_TABLE="$$dir" go test -count=1 -timeout 30m $(ARGS) ./internal/interop || code=1; \
	printf '\n| members (P: Patroni, R: Regent) | who leads | action | result | took |\n|---|---|---|---|---|\n'; \
	cat "$$dir"/* && exit "$$code"

##@ Tidy
.PHONY: clean
clean: ## remove what the build wrote
	@rm -rf bin dist

.PHONY: FORCE
FORCE:

# have: fail with a sentence when a command hasn't been written yet.
have = [[ -x bin/$(1) ]] || { echo 'cmd/$(1) is not part of this tree yet' >&2; exit 1; }
