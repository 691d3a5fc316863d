#!/usr/bin/env bash
# Everything a reviewer should not have to say; `make lint` builds the tools first. Prints what is wrong and goes on, so
# that one run shows it all.
set -uo pipefail
cd "$(dirname "$0")/.."

failed=0
step() {
    local name=$1
    shift
    echo "==> $name"
    "$@" || { failed=1; echo "    $name: not clean" >&2; }
}

gofmt_clean() {
    local files
    files=$(git ls-files -z --cached --others --exclude-standard '*.go' | xargs -0 ls -d 2>/dev/null | xargs gofmt -l)
    [ -z "$files" ] || { printf 'gofmt -w these:\n%s\n' "$files"; return 1; }
}

modules_tidy() {
    local dir bad=0
    for dir in $(go list -m -f '{{.Dir}}') "$PWD/tools"; do
        (cd "$dir" && GOWORK=off go mod tidy -diff) || { echo "go mod tidy in ${dir#"$PWD"/}"; bad=1; }
    done
    return $bad
}

# The contracts may only grow, against main or, on main itself, against the commit before.
contracts_kept() {
    local against
    against=$(git merge-base HEAD main 2>/dev/null || git rev-parse HEAD)
    if git diff --quiet "$against" -- proto && git rev-parse --quiet --verify "$against~1" >/dev/null; then against="$against~1"; fi
    tools/bin/buf breaking --against ".git#ref=$(git rev-parse "$against")"
}

generated_fresh() {
    local tmp bad=0
    tmp=$(mktemp -d)
    tools/bin/buf generate -o "$tmp" && gofmt -w "$tmp/proto/gen" && diff -r "$tmp/proto/gen" proto/gen >"$tmp/diff" || bad=1
    [ $bad -eq 0 ] || { head -n 20 "$tmp/diff" 2>/dev/null; echo "proto/gen is stale: make generate"; }
    rm -rf "$tmp"
    return $bad
}

step "gofmt" gofmt_clean
step "go mod tidy" modules_tidy
step "buf lint" tools/bin/buf lint
step "buf breaking" contracts_kept
step "generated code" generated_fresh
# shellcheck disable=SC2046 # one word per module
step "golangci-lint" tools/bin/golangci-lint run --build-tags=e2e,bench $(go list -m -f '{{.Dir}}/...')
exit $failed
