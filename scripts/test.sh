#!/usr/bin/env bash
# Runs parts of the test suite, in the order given: scripts/test.sh vet unit race race-pure fuzz e2e bench
#
# `work` is every module of go.work. What carries the build tag e2e or bench needs root and the binaries of `make build`,
# and has the machine for itself: it runs after the rest, one test after the other.
set -euo pipefail
cd "$(dirname "$0")/.."

as_root() {
    [ "$(id -u)" -eq 0 ] && return
    echo "$1 needs root: it makes network namespaces and runs the AppSwitch daemon. Run: sudo make $1" >&2
    exit 1
}

# Packages whose imports include neither gRPC nor etcd: their race-detector build takes seconds, not minutes.
pure_packages() {
    go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}} {{join .Deps " "}} {{join .TestImports " "}} {{join .XTestImports " "}}{{end}}' work |
        grep -v -e google.golang.org/grpc -e go.etcd.io/ | cut -d' ' -f1
}

for part in "$@"; do
    echo "==> $part"
    case "$part" in
    vet) go vet -tags=e2e,bench work ;;
    # -count=1: results that depend on the machine, or on other modules' files, must not come from the cache.
    unit) go test -count=1 -timeout=10m work ;;
    race) CGO_ENABLED=1 go test -race -timeout=20m work ;;
    race-pure) pure_packages | CGO_ENABLED=1 xargs -r go test -race -timeout=10m ;;
    # What decodes programs' memory runs for FUZZTIME; the rest, whose input comes from elsewhere, for a moment.
    fuzz) scripts/fuzz.sh "${FUZZTIME:-1m}" "${FUZZTIME_OTHERS-3s}" ;;
    e2e)
        as_root e2e
        # SHAPE divides AppSwitch into processes (test/e2e/harness/shape.go); empty: all of it as ax daemon, the core in all shapes.
        # FULL: all of the test suites of others (test/e2e/suites_test.go), not only what is quick.
        E2E_SHAPE="${SHAPE:-}" E2E_FULL="${FULL:-}" go test -tags=e2e -count=1 -timeout=30m ${RUN:+-v -run="$RUN"} ./test/e2e/...
        ;;
    bench)
        as_root bench
        go test -tags=bench -count=1 -timeout=30m -v ${RUN:+-run="$RUN"} ./test/bench/...
        ;;
    *)
        echo "no such part: $part (vet, unit, race, race-pure, fuzz, e2e, bench)" >&2
        exit 2
        ;;
    esac
done
