#!/usr/bin/env bash
# Runs every fuzz target of the tree for a while: scripts/fuzz.sh TIME [TIME-OF-OTHERS], as go test -fuzztime takes it.
#
# What the node agent decodes comes out of programs' memory: its targets run for TIME, guided by coverage. With a second
# time the others run for that, not guided: their binaries are those of the unit tests then, and building them with
# coverage takes longer than the short time is worth. Without one they are treated alike.
#
# As many run at once as there are processors, and only when nobody else wants one: CI runs this, with two times and twice as
# many at once, beside the whole-system tests. What a target finds is written into its package's testdata/fuzz, where `go test` runs it from then on: fix the
# code, and commit the file.
set -euo pipefail
cd "$(dirname "$0")/.."
export FUZZTIME="$1" OTHERS="${2:-}"
export WORK
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT

# "directory target" of each, by what stands in the source: asking the test binaries would build all of them once more.
targets() {
    grep -rHo --include='*_test.go' -E '^func Fuzz[A-Za-z0-9_]*' services/nodeagent services internal cmd |
        sed -E 's,/[^/]*:func , ,' | awk '!seen[$0]++'
}

run() { # directory target
    if [ -z "$OTHERS" ] || [[ $1 == services/nodeagent/* ]]; then
        go test -run='^$' -fuzz="^$2\$" -fuzztime="$FUZZTIME" -parallel=1 "./$1"
    else
        local binary="$WORK/${1//\//-}-$2"
        go test -c -o "$binary" "./$1"
        cd "$1"
        "$binary" -test.run='^$' -test.fuzz="^$2\$" -test.fuzztime="$OTHERS" -test.parallel=1 -test.fuzzcachedir="$WORK/cache"
    fi
}

one() {
    local log="$WORK/${1//\//-}-$2.log" status=0
    (set -e; run "$1" "$2") >"$log" 2>&1 || status=$?
    # The end of the time sometimes counts as a failure of its own (go.dev/issue/75804). A finding names its file.
    if [ "$status" -ne 0 ] && grep -q 'context deadline exceeded' "$log" && ! grep -q 'Failing input written' "$log"; then
        status=0
    fi
    if [ "$status" -eq 0 ]; then
        echo "ok   $1 $2 ($(grep -o 'execs: [0-9]*' "$log" | tail -1))"
    else
        echo "FAIL $1 $2"
        cat "$log"
    fi
    return "$status"
}
export -f run one

count=$(targets | wc -l)
[ "$count" -gt 0 ] || { echo "no fuzz targets found" >&2; exit 1; }
jobs=$(nproc)
[ -z "$OTHERS" ] || jobs=$((2 * jobs))
echo "$count fuzz targets, $jobs at once"
targets | chrt --idle 0 xargs -P "$jobs" -L 1 bash -c 'one "$0" "$1"'
