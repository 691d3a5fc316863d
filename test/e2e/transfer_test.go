//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"appswitch.io/test/e2e/harness"
)

// TestIperf: many streams at a time, either way and both ways.
func TestIperf(t *testing.T) {
	lab := node(t)
	iperf := lab.Need("iperf3")
	lab.Start("ax run --ip 1.1.1.1 --name perf -- " + iperf + " -s")
	lab.Start("ax run --ip 1.1.1.2 -- " + iperf + " -s -4 -B 1.1.1.2 -p 5000")
	lab.Serving("1.1.1.1:5201", 1)
	lab.Serving("1.1.1.2:5000", 1)
	for _, flags := range []string{
		"-c 1.1.1.1 -n 100M", "-c perf -P 4 -n 100M", "-c perf -P 4 -R -n 100M", "-c 1.1.1.1 -t 1 --bidir", "-c 1.1.1.2 -p 5000 -Z -n 50M",
		"-c perf -B 2.2.2.2 --cport 6000 -P 2 -n 50M",
	} {
		out := lab.Output("ax run --ip 2.2.2.2 -- " + iperf + " -J " + flags)
		var report struct {
			Start struct {
				Connected []struct {
					LocalHost  string `json:"local_host"`
					LocalPort  int    `json:"local_port"`
					RemoteHost string `json:"remote_host"`
				} `json:"connected"`
			} `json:"start"`
			End struct {
				Sent     struct{ Bytes int64 } `json:"sum_sent"`
				Received struct{ Bytes int64 } `json:"sum_received"`
			} `json:"end"`
		}
		if err := json.Unmarshal([]byte(out), &report); err != nil {
			t.Errorf("iperf3 %s: %v\n%s", flags, err, out)
			continue
		}
		const least = 10 << 20 // with -t, which says nothing on how much
		if report.End.Sent.Bytes < least || report.End.Received.Bytes < least || len(report.Start.Connected) == 0 {
			t.Errorf("iperf3 %s: %+v", flags, report)
		}
		for _, c := range report.Start.Connected {
			if !strings.HasSuffix(c.LocalHost, "2.2.2.2") || !strings.Contains(c.RemoteHost, "1.1.1.") ||
				strings.Contains(flags, "--cport") && c.LocalPort/10 != 600 {
				t.Errorf("iperf3 %s: addresses of a stream: %+v", flags, c)
			}
		}
	}
}

// TestRsync: a daemon that knows its clients by address and locks itself up in what it serves.
func TestRsync(t *testing.T) {
	lab := node(t)
	rsync := lab.Need("rsync")
	for i := range 200 {
		lab.WriteFile(fmt.Sprintf("data/%d/file%d", i%7, i), strings.Repeat(fmt.Sprintln(i), i*50))
	}
	for _, dir := range []string{"pulled", "pushed"} {
		if err := os.Mkdir(lab.Path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	conf := lab.WriteFile("rsyncd.conf", strings.ReplaceAll(`
log file = /dev/stderr
uid = root
gid = root
use chroot = yes
hosts allow = 2.2.2.2
[data]
path = DIR/data
[pushed]
path = DIR/pushed
read only = no
`, "DIR", lab.Path()))
	lab.Start("ax run --ip 1.1.1.1 --name files -- "+rsync+" --daemon --no-detach --config", conf)
	lab.Serving("1.1.1.1:873", 1)
	const client = "ax run --ip 2.2.2.2 -- "
	lab.Output(client + rsync + " -a rsync://files/data/ " + lab.Path("pulled") + "/")
	lab.Output(client + rsync + " -a " + lab.Path("data") + "/ 1.1.1.1::pushed/")
	for _, dir := range []string{"pulled", "pushed"} {
		equal(t, "differences of what was "+dir, lab.Run("diff -r "+lab.Path("data")+" "+lab.Path(dir)).Stdout, "")
	}
	r := lab.Run("ax run --ip 2.2.2.3 -- " + rsync + " rsync://files/data/")
	if r.Code == 0 || !strings.Contains(r.Stderr, "access denied") {
		t.Errorf("a client whom the daemon doesn't admit: %+v", r)
	}
}

// TestSocat: a server that forks, one that hands its connections on, and UNIX sockets at one end.
func TestSocat(t *testing.T) {
	lab := node(t)
	socat := lab.Need("socat")
	const ends = `SYSTEM:echo $SOCAT_SOCKADDR $SOCAT_SOCKPORT $SOCAT_PEERADDR`
	lab.Start("ax run --ip 1.1.1.1 --name ends -- "+socat+" TCP-LISTEN:7000,fork,reuseaddr,range=2.2.2.2/32", ends)
	lab.Start("ax run --ip 1.1.1.2 --name echo -- " + socat + " TCP6-LISTEN:7000,fork,ipv6only=0 EXEC:cat")
	lab.Start("ax run --ip 1.1.1.3 --name relay -- " + socat + " TCP-LISTEN:7000,fork TCP:echo:7000")
	unix := lab.Path("socket")
	lab.Start("ax run --ip 1.1.1.4 -- " + socat + " UNIX-LISTEN:" + unix + ",fork TCP:relay:7000")
	for i := range 3 {
		lab.Serving(fmt.Sprintf("1.1.1.%d:7000", i+1), 1)
	}
	const client = "ax run --ip 2.2.2.2 -- "
	for _, to := range []string{"TCP:1.1.1.1:7000", "TCP:ends:7000", "TCP:ends:7000,bind=2.2.2.2:5555,reuseaddr", "TCP:ends:7000,bind=:5556,reuseaddr"} {
		equal(t, to, lab.Output(client+socat+" -u "+to+" -"), "1.1.1.1 7000 2.2.2.2")
	}
	equal(t, "a client out of range", lab.Run("ax run --ip 2.2.2.3 -- "+socat+" -u TCP:ends:7000 -").Stdout, "")
	data := lab.Path("data")
	want := writeRandom(t, data, 5<<20)
	lab.Eventually(runLimit, "the UNIX socket", func() error { _, err := os.Stat(unix); return err })
	for _, to := range []string{"TCP:echo:7000", "TCP:1.1.1.3:7000", "UNIX-CONNECT:" + unix} {
		sum, _, _ := strings.Cut(lab.Output(client+"sh -c", socat+" -t 30 - "+to+" <"+data+" | sha256sum"), " ")
		equal(t, "what came back from "+to, sum, want)
	}
}

// TestNetcats: each make of netcat sends a file to each.
func TestNetcats(t *testing.T) {
	lab := node(t)
	data := lab.Path("data")
	want := writeRandom(t, data, 5<<20)
	servers := map[string]string{
		"nc.openbsd":     "-N -l 7000",
		"nc.traditional": "-q 0 -l -p 7000",
		"ncat":           "--send-only -l 7000",
	}
	clients := map[string]string{
		"nc.openbsd":     "-d ",
		"nc.traditional": "-v ",
		"ncat":           "--recv-only ",
	}
	i := 0
	for server, listen := range servers {
		for client, flags := range clients {
			i++
			ip, name := fmt.Sprintf("1.1.1.%d", i), fmt.Sprintf("nc%d", i)
			t.Run(server+"-to-"+client, func(t *testing.T) {
				lab := lab.In(t)
				for _, host := range []string{ip, name} {
					p := lab.Start("ax run --ip "+ip+" --name "+name+" -- sh -c", "exec "+lab.Need(server)+" "+listen+" <"+data)
					lab.Serving(ip+":7000", 1)
					sum, _, _ := strings.Cut(lab.Output("ax run -- sh -c", lab.Need(client)+" "+flags+host+" 7000 </dev/null | sha256sum"), " ")
					equal(t, "checksum", sum, want)
					if r := p.Wait(runLimit); r.Code != 0 {
						t.Errorf("%s: %+v", p, r)
					}
				}
			})
		}
	}
}

// TestNetcatManners: what else netcats are used for: to see whether a port is open, from a port of one's choice, as a server
// that runs a program or lets its clients talk to each other.
func TestNetcatManners(t *testing.T) {
	lab := node(t)
	ncat, openbsd, traditional := lab.Need("ncat"), lab.Need("nc.openbsd"), lab.Need("nc.traditional")
	lab.Start("ax run --ip 1.1.1.1 --name run -- "+ncat+" -k -l 7000 --allow 2.2.2.2 -c", "echo $NCAT_LOCAL_ADDR $NCAT_REMOTE_ADDR $NCAT_REMOTE_PORT")
	lab.Start("ax run --ip 1.1.1.2 --name chat -- " + ncat + " -k -l 7001 --broker")
	lab.Start("ax run --ip 1.1.1.3 --name once -- "+traditional+" -l -p 7002 -c", "echo once")
	lab.Serving("1.1.1.1:7000", 1)
	lab.Serving("1.1.1.2:7001", 1)
	lab.Serving("1.1.1.3:7002", 1)
	const client = "ax run --ip 2.2.2.2 -- "
	for _, nc := range []string{ncat + " -p 5001 --recv-only", openbsd + " -d -p 5001", traditional + " -p 5001 -s 2.2.2.2"} {
		out := lab.Output(client+"sh -c", nc+" run 7000 </dev/null")
		equal(t, nc, out, "1.1.1.1 2.2.2.2 5001")
	}
	for nc, closed := range map[string]string{openbsd: "-vz", traditional: "-vz", ncat: "-vz"} {
		if r := lab.Run("ax run -- " + nc + " " + closed + " chat 7001"); r.Code != 0 {
			t.Errorf("%s to an open port: %+v", filepath.Base(nc), r)
		}
		if r := lab.Run("ax run -- " + nc + " " + closed + " chat 7009"); r.Code != 1 || !strings.Contains(r.Stderr, "refused") {
			t.Errorf("%s to a closed port: %+v", filepath.Base(nc), r)
		}
	}
	equal(t, "a program run once", lab.Output(client+ncat+" --recv-only once 7002"), "once")
	listener := lab.Start("ax run -- " + ncat + " --recv-only chat 7001")
	said := 0
	lab.Eventually(runLimit, "what one client says reaches the other", func() error {
		said++
		lab.StartCmd(harness.Cmd{Args: strings.Fields("ax run -- " + ncat + " --send-only 1.1.1.2 7001"), Stdin: strings.NewReader("word\n")}).Wait(runLimit)
		return wantText(listener.Stdout(), true)
	})
	contains(t, "the other client", listener.Stdout(), "word")
}
