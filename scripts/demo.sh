#!/usr/bin/env bash
# Shows what AppSwitch does, with real programs on this machine, and checks every step: it ends with status 0 only if
# each one showed what it should. Run it as `make demo` (root). It keeps to directories of its own, touches no service of
# the machine and takes everything away again; KEEP=1 leaves it running and says how to stop it.
set -euo pipefail
cd "$(dirname "$0")/.."
readonly bin=$PWD/bin

# ---------------------------------------------------------------------------------------------------------- telling

if [ -t 1 ]; then
    bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' red=$'\e[31m' cyan=$'\e[36m' plain=$'\e[0m'
else
    bold='' dim='' green='' red='' cyan='' plain=''
fi
chapter=0
chapter() { chapter=$((chapter + 1)) && printf '\n%s%d. %s%s\n' "$bold" $chapter "$1" "$plain"; }
say() { printf '   %s\n' "$@"; }
good() { printf '   %s✓ %s%s\n' "$green" "$1" "$plain"; }
prompt() { printf '   %s# %s%s\n' "$cyan" "$1" "$plain"; }
fail() {
    printf '   %s✗ %s%s\n' "$red" "$1" "$plain"
    for log in "$dir"/log/*; do
        [ -s "$log" ] && printf '\n   %sthe end of %s:%s\n' "$dim" "${log##*/}" "$plain" && tail -n 15 "$log" | sed 's/^/   | /'
    done
    exit 1
}

# show COMMAND PATTERN CLAIM runs a command before the reader's eyes. Its output must match.
show() {
    local out
    prompt "$1"
    out=$(timeout 30 bash -c "$1" 2>&1 | tr -d '\r') || true # what it showed decides, not how it ended
    sed -n '/./s/^/   /p' <<<"$out"
    grep -Eq -- "$2" <<<"$out" || fail "it should have shown: $3"
    good "$3"
}

# ---------------------------------------------------------------------------------------------------------- running

# within SECONDS COMMAND... repeats a command until it succeeds.
within() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $deadline ] || return 1
        sleep 0.1
    done
}

declare -A apps=()
# serve NAME COMMAND starts an application in the background.
serve() {
    prompt "$2 &"
    bash -c "exec $2" >"$dir/log/$1" 2>&1 </dev/null &
    apps[$1]=$!
}
# leave NAME ends it.
leave() {
    kill -TERM "${apps[$1]}" 2>/dev/null || true
    wait "${apps[$1]}" 2>/dev/null || true
    unset "apps[$1]"
}
serving() { [ "$(ax get servers | grep -cF " $1 ")" -eq "$2" ]; }
await() { within 20 serving "$1" "$2" || fail "$2 servers at $1 within 20 seconds"; }

ready_or_dead() { ax status || ! kill -0 "$daemon"; }
start_daemon() {
    prompt "ax daemon &"
    ax daemon >>"$dir/log/daemon" 2>&1 </dev/null &
    daemon=$!
    within 30 ready_or_dead || fail "the daemon is ready within 30 seconds"
    kill -0 "$daemon" 2>/dev/null || fail "the daemon keeps running"
}

# left prints the processes that still carry the demo's mark; it takes none of its own for one.
left() (
    unset APPSWITCH_DEMO
    grep -lzxF -- "APPSWITCH_DEMO=$dir" /proc/[0-9]*/environ 2>/dev/null | cut -d/ -f3
)
nobody_left() { [ -z "$(left)" ]; }

cleanup() {
    local status=$? name pid
    trap - EXIT
    trap '' INT TERM HUP
    for name in "${!apps[@]}"; do leave "$name"; done
    if [ -n "${daemon:-}" ]; then kill -TERM "$daemon" 2>/dev/null || true; fi
    if ! within 15 nobody_left; then
        for pid in $(left); do
            printf '%sleft behind, now killed: %s%s\n' "$red" "$pid $(tr '\0' ' ' <"/proc/$pid/cmdline")" "$plain" >&2
            kill -KILL "$pid" || true
        done
        status=1
    fi
    rm -rf "$dir" || status=1
    [ $status -eq 1 ] && printf '\n%sThe demo did not show what it should.%s\n' "$red" "$plain" >&2
    exit $status
}

# ---------------------------------------------------------------------------------------------------------- preparing

if [ "$(id -u)" -ne 0 ]; then
    echo "the demo needs root: each program gets a network namespace of its own. Run: sudo make demo" >&2
    exit 1
fi
[ -x "$bin/ax" ] || { echo "$bin/ax is missing: run make build first" >&2; exit 1; }
for program in nginx curl; do
    command -v $program >/dev/null || { echo "$program is missing: run scripts/provision.sh demo" >&2; exit 1; }
done
if curl -s --max-time 5 -o /dev/null http://127.0.0.1:6664/healthz; then
    echo "port 6664 is in use: is an AppSwitch daemon running already? Stop it, then run the demo again" >&2
    exit 1
fi

dir=$(mktemp -d /tmp/appswitch-demo.XXXXXX)
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
chmod 0755 "$dir"
mkdir "$dir/log" "$dir/run" "$dir/state"
export APPSWITCH_DEMO=$dir AX_RUN_DIR=$dir/run AX_STATE_DIR=$dir/state AX_AGENT_STATE_DIR=$dir/agent PATH=$bin:$PATH
unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY

# site NAME writes an nginx that says its name. It listens as Debian's does, and stays clear of the machine's own.
site() {
    mkdir "$dir/$1"
    cat >"$dir/$1.conf" <<END
daemon off;
worker_processes 2;
pid $dir/$1/pid;
error_log stderr warn;
events { worker_connections 256; }
http {
    access_log off;
    default_type text/plain;
    client_body_temp_path $dir/$1/body;
    proxy_temp_path $dir/$1/proxy;
    fastcgi_temp_path $dir/$1/fastcgi;
    uwsgi_temp_path $dir/$1/uwsgi;
    scgi_temp_path $dir/$1/scgi;
    server {
        listen 80 default_server;
        listen [::]:80 default_server;
        add_header X-Backend-Server $1;
        location / { return 200 "this is $1, you are \$remote_addr\n"; }
    }
}
END
}
nginx_of() { echo "nginx -e stderr -c $dir/$1.conf"; }
for name in web1 web2 prod test; do site $name; done

# ---------------------------------------------------------------------------------------------------------- the story

printf '%sAppSwitch%s gives programs addresses and names of their own, finds services, balances and guards connections,\n' "$bold" "$plain"
printf 'and changes nothing about the programs or the network. Everything below runs now, on this machine.\n'

chapter "One daemon is all a machine needs"
start_daemon
show "ax status" "." "registry, resolver, router, node agent and gateway are up"

chapter "A server at any address, under any name"
say "nginx runs in an empty network namespace. No interface is made and no route set: 1.1.1.1 exists for programs only."
serve web1 "ax run --ip 1.1.1.1 --name web $(nginx_of web1)"
await 1.1.1.1:80 1
show "ax run --ip 2.2.2.2 curl -sI 1.1.1.1" "200 OK" "curl reaches nginx at 1.1.1.1"
show "ax run -- curl -sI web" "X-Backend-Server: web1" "and by its name"
show "ax run --ip 2.2.2.2 curl -s web" "you are 2\.2\.2\.2" "nginx sees the client's own address, not a proxy's"

chapter "A second server on the same address: connections are balanced"
serve web2 "ax run --ip 1.1.1.1 --name web $(nginx_of web2)"
await 1.1.1.1:80 2
show "ax run -- sh -c 'for i in \$(seq 30); do curl -s 1.1.1.1; done | sort | uniq -c'" "this is web1" "some of 30 requests reach web1"
show "ax run -- sh -c 'for i in \$(seq 30); do curl -s web; done | sort | uniq -c'" "this is web2" "and some reach web2, by name as well"

chapter "Labels say who may talk to whom"
serve prod "ax run --ip 3.3.3.3 --labels role=prod $(nginx_of prod)"
serve test "ax run --ip 3.3.3.3 --labels role=test $(nginx_of test)"
await 3.3.3.3:80 2
show "for i in 1 2 3 4; do ax --labels role=test curl -s 3.3.3.3; done | cut -d, -f1 | sort | uniq -c" "^ +4 this is test" \
    "a client with role=test gets to the test server only, though both have the same address"
show "ax --labels role=prod curl -s 3.3.3.3" "this is prod" "a client with role=prod gets to the other one"
show "ax run -- curl -sS 3.3.3.3" "Failed to connect|refused" "a client without such a label gets to neither: the connection is refused"

chapter "What runs where"
show "ax get apps" "role=prod" "the applications, with their labels"
show "ax get servers" "1\.1\.1\.1:80" "their services: virtual address, and where each really listens"
show "ax get sockets" "BACKLOG" "their sockets"
show "ax get nodes" "$(hostname)" "this machine"
show "curl -s http://127.0.0.1:6664/v1/nodes" '"nodes":' "all of it through REST, too"

chapter "The daemon dies, the programs don't notice"
say "40 requests, one after the other, while the daemon is killed with SIGKILL and started again."
prompt "ax run -- sh -c 'for i in \$(seq 40); do curl -s web; sleep 0.1; done' &"
ax run -- sh -c 'for i in $(seq 40); do curl -sS --max-time 30 web; sleep 0.1; done' >"$dir/log/requests" 2>&1 </dev/null &
apps[requests]=$!
sleep 1
prompt "kill -9 $daemon"
kill -KILL "$daemon"
wait "$daemon" 2>/dev/null || true
sleep 1
start_daemon
wait "${apps[requests]}" || fail "a request failed"
unset 'apps[requests]'
show "grep -c 'this is web' $dir/log/requests" "^40$" "40 requests, 40 answers"

if [ -n "${KEEP:-}" ]; then
    trap - EXIT
    cat >"$dir/stop" <<END
#!/bin/sh
# Ends the demo and removes everything of it.
for pid in ${apps[@]} $daemon; do
    kill \$pid && while kill -0 \$pid; do sleep 0.1; done
done 2>/dev/null
rm -rf $dir
END
    chmod +x "$dir/stop"
    chapter "It is all yours"
    say "export PATH=$bin:\$PATH AX_RUN_DIR=$AX_RUN_DIR" "ax run -- curl web" "ax get servers" "" \
        "$dir/stop    # when you are done"
    exit 0
fi

chapter "A program ends, and nothing of it stays"
for name in web1 web2 prod test; do leave $name; done
prompt "kill the four servers"
gone() { [ "$(ax get servers | grep -c :80)" -eq 0 ] && [ "$(ax get apps | grep -c role=)" -eq 0 ]; }
within 10 gone || fail "the tables are empty within 10 seconds"
show "ax get servers" "SERVICEADDR" "no server in the table"
show "ax run -- curl -sS --max-time 5 1.1.1.1" "Failed to connect|refused" "and nobody at 1.1.1.1: the address stays virtual and is refused"
kill -TERM "$daemon"
wait "$daemon" || fail "the daemon ends with status 0"
daemon=
within 10 nobody_left || fail "no process is left"
good "no process, port, namespace or file is left either"
printf '\n%sThat was AppSwitch.%s Next: make install, then `ax daemon` and docs/.\n' "$bold" "$plain"
