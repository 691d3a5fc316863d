# AppSwitch: `make help` lists the targets. `make demo` and `make test` want root; nothing else does.

SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# sudo's PATH seldom has Go in it.
export PATH := $(PATH):/usr/local/go/bin:/usr/local/sbin:/usr/sbin:/sbin

GO       ?= go
PREFIX   ?= /usr
DESTDIR  ?=
# make before 4.4 does not give what it exports to $(shell).
HOSTARCH := $(shell PATH='$(PATH)' $(GO) env GOHOSTARCH 2>/dev/null)
ARCH     ?= $(HOSTARCH)
# Binaries for this machine are in bin/, those for another one in bin/linux-<arch>/.
OUT      := $(if $(filter $(ARCH),$(HOSTARCH)),bin,bin/linux-$(ARCH))

# --version reads the revision that the go command stamps. Asked for by name because a GOFLAGS in the environment may
# switch it off, and only where git answers: a tarball, or a clone that belongs to somebody else, builds too.
BUILDVCS := $(if $(shell git rev-parse --verify HEAD 2>/dev/null),true,false)
# -w drops DWARF, a quarter of the file, which only a debugger reads. The symbol table stays: perf and bpftrace need it, and
# it is a tenth. Panics and pprof need neither.
LDFLAGS  ?= -w
# A program under `ax run` inherits ignored and blocked signals (nohup!). Go's runtime knows them and tells nobody; the tag
# lets the launcher read its variables, which the linker must be told to allow.
BUILD    := CGO_ENABLED=0 GOOS=linux GOARCH=$(ARCH) $(GO) build -trimpath -buildvcs=$(BUILDVCS) -tags=exactsignals \
            -ldflags='$(LDFLAGS) -checklinkname=0'

MAINS    := $(sort $(dir $(wildcard cmd/*/main.go services/*/cmd/*/main.go)))

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z][a-z0-9-]*:.*## / {printf "  make %-11s %s\n", $$1, $$2}' Makefile
	@echo "Variables: ARCH=arm64 (build, install), PREFIX=$(PREFIX) DESTDIR= (install), KEEP=1 (demo), RUN=regexp SHAPE=shape FULL=1 (e2e), FUZZTIME=1m (fuzz)"

.PHONY: demo
demo: ## show AppSwitch with real programs on this machine (root; KEEP=1 leaves it running)
	@scripts/provision.sh demo
	@$(MAKE) --no-print-directory build
	@KEEP='$(KEEP)' scripts/demo.sh

.PHONY: build
build: ## build static binaries into bin/ (ARCH=arm64: into bin/linux-arm64/)
	@mkdir -p $(OUT)
	$(if $(MAINS),,$(error no main package under cmd/ and services/*/cmd/))$(BUILD) -o $(OUT)/ $(addprefix ./,$(MAINS))
	@ln -sfn axctl $(OUT)/ax
	@if [ -n "$${SUDO_UID:-}" ]; then chown -hR "$$SUDO_UID:$$SUDO_GID" bin; fi

.PHONY: cross
cross: ## build for linux/amd64 and linux/arm64
	@$(MAKE) --no-print-directory build ARCH=amd64
	@$(MAKE) --no-print-directory build ARCH=arm64

.PHONY: install
install: build ## install to $(DESTDIR)$(PREFIX)/bin, with the link ax
	install -d '$(DESTDIR)$(PREFIX)/bin'
	install -m 0755 $(addprefix $(OUT)/,$(notdir $(patsubst %/,%,$(MAINS)))) '$(DESTDIR)$(PREFIX)/bin/'
	ln -sfn axctl '$(DESTDIR)$(PREFIX)/bin/ax'

.PHONY: test
test: ## install what the tests need (apt), then run all of them (root)
	@scripts/provision.sh test
	@$(MAKE) --no-print-directory cross
	@scripts/test.sh vet unit race-pure
	@scripts/test.sh fuzz & fuzz=$$!; scripts/test.sh e2e || status=$$?; wait $$fuzz || status=$$?; exit $${status:-0}

.PHONY: unit
unit: ## run the tests of every module, without the whole-system tests
	@scripts/test.sh vet unit

.PHONY: race
race: ## run the tests of every module with the race detector
	@scripts/test.sh race

.PHONY: e2e
e2e: build ## run the whole-system tests with real programs (root; RUN=regexp, SHAPE=daemon|processes|pairs, FULL=1)
	@RUN='$(RUN)' SHAPE='$(SHAPE)' FULL='$(FULL)' scripts/test.sh e2e

.PHONY: chaos
chaos: build ## kill every daemon again and again under load, 50 times the agent (root; CHAOS_SEED=n, SHAPE=processes|pairs)
	@CHAOS=full CHAOS_SEED='$(CHAOS_SEED)' RUN='^TestChaos$$' SHAPE='$(SHAPE)' scripts/test.sh e2e

.PHONY: fuzz
fuzz: ## run every fuzz target (FUZZTIME=1m each)
	@FUZZTIME='$(or $(FUZZTIME),1m)' FUZZTIME_OTHERS= scripts/test.sh fuzz

.PHONY: bench
bench: build ## compare native programs with the same under `ax run` (root)
	@scripts/test.sh bench

.PHONY: lint
lint: tools/bin/.stamp ## golangci-lint, buf lint and breaking, gofmt, go mod tidy, generated code
	@scripts/lint.sh

.PHONY: check
check: lint test race ## everything: lint, test, race

.PHONY: generate
generate: tools/bin/.stamp ## generate proto/gen from the contracts
	tools/bin/buf generate
	gofmt -w proto/gen

# Building the tools cold takes minutes, and nothing but generate and lint needs them: generated code is committed.
tools/bin/.stamp: tools/go.mod tools/go.sum
	GOWORK=off GOBIN=$(CURDIR)/tools/bin $(GO) -C tools install -buildvcs=false tool
	@touch $@

.PHONY: clean
clean: ## remove what was built
	rm -rf bin tools/bin
