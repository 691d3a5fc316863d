//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"appswitch.io/test/e2e/harness"
)

// postgres returns the directory of PostgreSQL's programs: Debian keeps those of each version in one of their own.
func postgres(t *testing.T) string {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if len(found) == 0 {
		t.Fatal("PostgreSQL is missing: run scripts/provision.sh test, which `make test` does")
	}
	return filepath.Dir(found[len(found)-1]) + "/"
}

// TestPostgres: a server that forks a process for each connection and knows its clients by their addresses, with load over
// lasting connections and over one connection for each transaction.
func TestPostgres(t *testing.T) {
	lab := node(t)
	bin, data := postgres(t), lab.Path("pg")
	lab.Output("install -d -o postgres -g postgres -m 0700", data)
	lab.Output("setpriv --reuid postgres --regid postgres --init-groups "+bin+"initdb --no-sync --locale=C -A trust -U postgres -D", data)
	hba := "local all all trust\nhost all all 2.2.2.2/32 trust\nhost replication all 2.2.2.2/32 trust\nhost all all 0.0.0.0/0 reject\n"
	if err := os.WriteFile(filepath.Join(data, "pg_hba.conf"), []byte(hba), 0o644); err != nil {
		t.Fatal(err)
	}
	lab.Start("ax run --ip 1.1.1.1 --name db --user postgres -- "+bin+"postgres -h * -c fsync=off -c unix_socket_directories= -D", data)
	lab.Serving("1.1.1.1:5432", 1)
	const client = "ax run --ip 2.2.2.2 -- "
	psql := bin + "psql -X -A -t -q -U postgres -d postgres -h "
	lab.Eventually(runLimit, "the server is ready", func() error {
		if r := lab.Run(client + bin + "pg_isready -h db"); r.Code != 0 {
			return fmt.Errorf("%s%s", r.Stdout, r.Stderr)
		}
		return nil
	})
	for _, host := range []string{"1.1.1.1", "db", "db.appswitch.local"} {
		out := lab.Output(client+psql+host+" -c", "select host(inet_client_addr()), host(inet_server_addr()), inet_server_port()")
		equal(t, "addresses as the server sees them", out, "2.2.2.2|1.1.1.1|5432")
	}
	r := lab.Run("ax run --ip 2.2.2.3 -- "+psql+"db -c", "select 1")
	if r.Code == 0 || !strings.Contains(r.Stderr, "2.2.2.3") {
		t.Errorf("a client whom pg_hba.conf rejects: %+v, want its address in the error", r)
	}

	pgbench := client + bin + "pgbench -U postgres "
	lab.Output(pgbench + "-i -q -h db postgres")
	total := 0
	for _, load := range []string{"-c 4 -j 2 -h 1.1.1.1", "-c 4 -j 2 -C -h db"} {
		out := lab.Output(pgbench + "-n -T 3 " + load + " postgres")
		var done int
		if found := transactions.FindStringSubmatch(out); found != nil {
			_, _ = fmt.Sscan(found[1], &done)
		}
		if done == 0 {
			t.Errorf("pgbench %s:\n%s", load, out)
		}
		total += done
	}
	const books = `select (select count(*) from pgbench_history), (select sum(abalance) from pgbench_accounts) =
		(select sum(delta) from pgbench_history)`
	equal(t, "transactions in the books, and their sum", lab.Output(client+psql+"db -c", books), fmt.Sprintf("%d|t", total))

	sum := lab.Output(client+psql+"db -c", "select sum(x) from (select generate_series(1, 300000)) as s(x)")
	rows := lab.Output(client+"sh -c", psql+`db -c "copy (select generate_series(1, 300000)) to stdout" | awk '{ s += $1 } END { printf "%.0f", s }'`)
	equal(t, "300,000 rows copied", rows, sum)

	// A standby, which is a server itself and a client of the first one.
	copied := lab.Path("standby")
	lab.Output("install -d -o postgres -g postgres -m 0700", copied)
	const second = "ax run --ip 2.2.2.2 --name standby --user postgres -- "
	lab.Output(second + bin + "pg_basebackup -U postgres -h db -R -X stream -c fast --no-sync -D " + copied)
	lab.Start(second+bin+"postgres -h * -c fsync=off -c unix_socket_directories= -D", copied)
	lab.Serving("2.2.2.2:5432", 1)
	lab.Output(client+psql+"db -c", "create table later as select 42 as x")
	lab.Eventually(runLimit, "the standby has what came later", func() error {
		r := lab.Run(client+psql+"standby -c", "select x from later")
		if strings.TrimSpace(r.Stdout) != "42" {
			return fmt.Errorf("%s%s", r.Stdout, r.Stderr)
		}
		return nil
	})
	equal(t, "the standby as its server sees it", lab.Output(client+psql+"db -c", "select host(client_addr), state from pg_stat_replication"), "2.2.2.2|streaming")

	// psql asks by a connection of its own, made in a signal handler, for the end of what it waits for.
	waiting := lab.Start(client+psql+"db -c", "select pg_sleep(60)")
	lab.Eventually(runLimit, "the statement runs", func() error {
		return wantText(lab.Output(client+psql+"db -c", "select 1 from pg_stat_activity where wait_event = 'PgSleep'"), true)
	})
	waiting.Signal(syscall.SIGINT)
	contains(t, "a cancelled statement", waiting.Wait(runLimit).Stderr, "canceling statement due to user request")
}

var transactions = regexp.MustCompile(`number of transactions actually processed: (\d+)`)

// TestMemcached: a server with four threads, to whom one of them hands the connections it accepts.
func TestMemcached(t *testing.T) {
	lab := node(t)
	memcached := lab.Need("memcached") + " -u nobody -t 4 -m 64 -c 256"
	lab.Start("ax run --ip 1.1.1.1 --name cache -- " + memcached)
	lab.Start("ax run --ip 1.1.1.2 -- " + memcached + " -l 0.0.0.0 -p 11311")
	lab.Neighbour().Start(memcached)
	lab.Serving("1.1.1.1:11211", 1)
	lab.Serving("1.1.1.2:11311", 1)
	listens(lab, harness.NeighbourIP+":11211")
	// The protocol in detail, as it is natively.
	capable := lab.Need("memccapable") + " -a -T 20 -h "
	want := lab.Run(capable + harness.NeighbourIP + " -p 11211")
	contains(t, "memccapable natively", want.Stdout, "All tests passed")
	for _, at := range []string{"1.1.1.1 -p 11211", "1.1.1.2 -p 11311"} {
		if got := lab.Run("ax run -- " + capable + at); got.Code != want.Code || got.Stdout != want.Stdout {
			t.Errorf("memccapable at %s: %+v, natively %+v", at, got, want)
		}
	}
	load := lab.WriteFile("load.py", memcachedLoad)
	for _, host := range []string{"1.1.1.1", "cache"} {
		equal(t, "8 threads, 400 connections", lab.Output("ax run -- python3", load, host, "11211"), "400")
	}
}

// memcachedLoad sets and gets values of many sizes over short connections in eight threads, and prints how many were right.
const memcachedLoad = `
import concurrent.futures, socket, sys
def round_trip(i):
    value = bytes([i % 251]) * (1 + i * 97)
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=30) as s:
        f = s.makefile('rb')
        s.sendall(b'set k%d 0 0 %d\r\n' % (i, len(value)) + value + b'\r\n')
        stored = f.readline()
        s.sendall(b'get k%d\r\n' % i)
        head = f.readline()
        return stored == b'STORED\r\n' and head == b'VALUE k%d 0 %d\r\n' % (i, len(value)) and f.read(len(value)) == value
with concurrent.futures.ThreadPoolExecutor(8) as pool:
    print(sum(pool.map(round_trip, range(400))))
`

// TestEtcd: a cluster of three, whose members are one another's servers and clients, by name; it outlives one of them.
func TestEtcd(t *testing.T) {
	lab := node(t)
	etcd, etcdctl := lab.Need("etcd"), lab.Need("etcdctl")
	var cluster, byIP, byName []string
	for i := range 3 {
		cluster = append(cluster, fmt.Sprintf("n%d=http://etcd-%d:2380", i, i))
		byIP = append(byIP, fmt.Sprintf("http://1.1.1.%d:2379", i+1))
		byName = append(byName, fmt.Sprintf("http://etcd-%d:2379", i))
	}
	var members []*harness.Proc
	for i := range 3 {
		line := fmt.Sprintf("ax run --ip 1.1.1.%d --name etcd-%d -- %s --name n%d --data-dir %s", i+1, i, etcd, i, lab.Path(fmt.Sprintf("etcd%d", i)))
		// One listens on the wildcard, the others on their address.
		ip := []string{"0.0.0.0", "1.1.1.2", "1.1.1.3"}[i]
		members = append(members, lab.StartCmd(harness.Cmd{
			Env: []string{"ETCD_UNSUPPORTED_ARCH=" + runtime.GOARCH},
			Args: append(strings.Fields(line), "--listen-client-urls", "http://"+ip+":2379", "--advertise-client-urls", byIP[i],
				"--listen-peer-urls", "http://"+ip+":2380", "--initial-advertise-peer-urls", "http://etcd-"+fmt.Sprint(i)+":2380",
				"--initial-cluster", strings.Join(cluster, ","), "--initial-cluster-state", "new"),
		}))
	}
	ctl := func(endpoints []string) string {
		return "ax run -- " + etcdctl + " --command-timeout=20s --endpoints " + strings.Join(endpoints, ",") + " "
	}
	lab.Eventually(2*time.Minute, "the cluster is healthy", func() error {
		if r := lab.Run(ctl(byIP) + "endpoint health"); r.Code != 0 {
			return fmt.Errorf("%s%s", r.Stdout, r.Stderr)
		}
		return nil
	})
	for i := range 3 {
		key := fmt.Sprintf("key%d", i)
		equal(t, "put by name", lab.Output(ctl(byName[i:i+1])+"put "+key, "value"), "OK")
		equal(t, "get by address from another member", lab.Output(ctl(byIP[(i+1)%3:][:1])+"get --print-value-only "+key), "value")
	}
	watch := lab.Start(ctl(byName[1:2]) + "watch seen")
	lab.Eventually(runLimit, "the watch sees what is put elsewhere", func() error {
		lab.Output(ctl(byIP[2:]) + "put seen it")
		return wantText(watch.Stdout(), true)
	})
	members[0].Stop()
	for i := range 5 {
		lab.Output(ctl(byIP[1:]) + fmt.Sprintf("put after%d x", i))
	}
	if keys := harness.Lines(lab.Output(ctl(byName[2:]) + "get --prefix --keys-only after")); len(keys) != 5 {
		t.Errorf("keys put with two of three members: %q, want 5", keys)
	}
}
