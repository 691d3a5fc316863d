#!/usr/bin/env bash
# Installs the programs that the demo or the tests run, on Debian and Ubuntu: scripts/provision.sh demo|test
#
# It only adds what is missing, and is silent when nothing is. A service that comes along (nginx, PostgreSQL, sshd and
# others) is neither started nor enabled; one that was here before is left exactly as it was.
set -euo pipefail
cd "$(dirname "$0")/.."

case "${1:-}" in
demo) wanted="nginx:nginx curl:curl" ;;
test) wanted="nginx:nginx curl:curl python3:python3 ip:iproute2 ss:iproute2 nsenter:util-linux ps:procps git:git
              redis-server:redis-server redis-benchmark:redis-tools wrk:wrk dig:bind9-dnsutils
              node:nodejs javac:default-jdk-headless gcc:gcc musl-gcc:musl-tools
              memcached:memcached memccapable:libmemcached-tools etcd:etcd-server etcdctl:etcd-client
              openssl:openssl watch:procps haproxy:haproxy apache2:apache2-bin sshd:openssh-server ssh:openssh-client rsync:rsync iperf3:iperf3 dnsmasq:dnsmasq-base
              socat:socat vsftpd:vsftpd lftp:lftp mosquitto:mosquitto mosquitto_pub:mosquitto-clients nats-server:nats-server
              php:php-cli ruby:ruby perl:perl nc.openbsd:netcat-openbsd nc.traditional:netcat-traditional ncat:ncat" ;;
*) echo "usage: $0 demo|test" >&2; exit 2 ;;
esac

if [ "$(id -u)" -ne 0 ]; then
    echo "make $1 needs root: it makes network namespaces and runs the AppSwitch daemon. Run: sudo make $1" >&2
    exit 1
fi
if ! command -v go >/dev/null; then
    echo "go is not in PATH ($PATH): install Go 1.26 or newer from https://go.dev/dl" >&2
    exit 1
fi

# Where the tests look, too. What lies elsewhere is somebody's wrapper, and root may not have it.
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

missing=() packages=()
for w in $wanted; do
    command -v "${w%%:*}" >/dev/null && continue
    missing+=("${w%%:*}")
    packages+=("${w##*:}")
done
# gcc only recommends the C headers that the race detector's cgo needs.
[ "$1" = test ] && [ ! -e /usr/include/stdio.h ] && missing+=("stdio.h") && packages+=(libc6-dev)
# wrk asks getaddrinfo for the port of "http", which stands there.
[ "$1" = test ] && [ ! -e /etc/services ] && missing+=("/etc/services") && packages+=(netbase)
[ "$1" = test ] && [ ! -e /usr/lib/python3/dist-packages/grpc ] && missing+=("/python3-grpcio") && packages+=(python3-grpcio)
# Its programs are in a directory of each version; what is in PATH comes with the client.
[ "$1" = test ] && ! compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null && missing+=("/postgresql") && packages+=(postgresql)
# Python's own tests; python3 alone comes with a directory of that name, too.
[ "$1" = test ] && ! compgen -G '/usr/lib/python3.*/test/test_socket.py' >/dev/null && missing+=("/python3-tests") && packages+=(python3-tests)
[ ${#missing[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null; then
    echo "missing programs: ${missing[*]}; this is not Debian or Ubuntu, so install them yourself and try again" >&2
    exit 1
fi

log=$(mktemp)
policy=/usr/sbin/policy-rc.d
saved=
tidy() {
    if [ -n "$saved" ]; then
        if [ "$saved" = none ]; then rm -f "$policy"; else mv -f "$saved" "$policy"; fi
    fi
    rm -f "$log"
}
trap tidy EXIT
trap 'exit 130' INT TERM

# policy-rc.d is Debian's way to say "install, do not start"; 101 is its word for forbidden.
if [ -e "$policy" ]; then saved=$(mktemp "$policy.XXXXXX") && mv -f "$policy" "$saved"; else saved=none; fi
printf '#!/bin/sh\nexit 101\n' >"$policy"
chmod 0755 "$policy"

apt() { DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -qq "$@" </dev/null >>"$log" 2>&1; }
echo "installing: ${packages[*]}"
if ! apt update; then
    echo "warning: apt-get update was not complete:" >&2
    tail -n 5 "$log" >&2
fi
# nginx as a metapackage pulls in modules that nobody needs here.
if apt-cache show nginx-light >/dev/null 2>&1; then packages=("${packages[@]/#%nginx/nginx-light}"); fi
# That package has the version in its name.
version=$(apt-cache depends python3 | sed -n 's/.*Depends: python\(3\.[0-9]*\)$/\1/p' | head -n 1)
packages=("${packages[@]/python3-tests/libpython$version-testsuite}")
if ! apt install --no-install-recommends -y "${packages[@]}"; then
    echo "apt-get install ${packages[*]} went wrong:" >&2
    tail -n 30 "$log" >&2
    exit 1
fi

# The packages' scripts enable their units for the next boot even where they may not start them now. program:unit
for service in nginx redis-server memcached etcd haproxy rsync iperf3 vsftpd mosquitto nats-server sshd:ssh.service sshd:ssh.socket /postgresql:postgresql; do
    case " ${missing[*]} " in *" ${service%%:*} "*) ;; *) continue ;; esac
    unit=${service##*:}
    if command -v systemctl >/dev/null && systemctl is-enabled -q "$unit" 2>/dev/null; then
        systemctl disable "$unit" >>"$log" 2>&1 || { echo "systemctl disable $unit:" >&2; tail -n 3 "$log" >&2; exit 1; }
    fi
done

hash -r
for program in "${missing[@]}"; do
    case "$program" in stdio.h | /*) continue ;; esac
    command -v "$program" >/dev/null || { echo "$program is still missing after apt-get install ${packages[*]}" >&2; exit 1; }
done
