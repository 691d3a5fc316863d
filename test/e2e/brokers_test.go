//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"appswitch.io/test/e2e/harness"
)

// TestRedisCluster: three servers that tell each other, and their clients, of their virtual addresses, on a second port as well.
func TestRedisCluster(t *testing.T) {
	lab := node(t)
	server := lab.Need("redis-server")
	cli := "ax run --ip 2.2.2.2 -- " + lab.Need("redis-cli")
	for i := range 3 {
		ip, dir := fmt.Sprintf("3.3.3.%d", i+1), lab.Path(fmt.Sprint("redis", i))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		lab.Start(fmt.Sprintf("ax run --ip %s --name redis%d -- %s --protected-mode no --cluster-enabled yes --cluster-announce-ip %[1]s --dir %[4]s --save",
			ip, i, server, dir), "")
		lab.Serving(ip+":6379", 1)
		lab.Serving(ip+":16379", 1)
	}
	lab.Output(cli + " --cluster create 3.3.3.1:6379 3.3.3.2:6379 3.3.3.3:6379 --cluster-yes")
	for i := range 3 {
		lab.Eventually(runLimit, "a cluster that works", func() error {
			if out := lab.Output(fmt.Sprintf("%s -h redis%d cluster info", cli, i)); !strings.Contains(out, "cluster_state:ok") {
				return errors.New(out)
			}
			return nil
		})
	}
	for i := range 12 { // over all three, which send the client from one to another
		equal(t, "set", lab.Output(fmt.Sprintf("%s -c -h 3.3.3.1 set key%d value%[2]d", cli, i)), "OK")
		equal(t, "get", lab.Output(fmt.Sprintf("%s -c -h redis2 get key%d", cli, i)), fmt.Sprint("value", i))
	}
	nodes := lab.Output(cli + " -h redis1 cluster nodes")
	for i := range 3 {
		contains(t, "the nodes of the cluster", nodes, fmt.Sprintf(" 3.3.3.%d:6379@16379 ", i+1))
	}
}

// TestBrokers: what one client says reaches another through the server.
func TestBrokers(t *testing.T) {
	lab := node(t)
	conf := lab.WriteFile("mosquitto.conf", "listener 1883 0.0.0.0\nallow_anonymous true\n")
	lab.Start("ax run --ip 1.1.1.1 --name mqtt -- " + lab.Need("mosquitto") + " -c " + conf)
	lab.Start("ax run --ip 1.1.1.2 --name nats -- " + lab.Need("nats-server") + " -a 0.0.0.0")
	lab.Serving("1.1.1.1:1883", 1)
	lab.Serving("1.1.1.2:4222", 1)
	const client = "ax run --ip 2.2.2.2 -- "
	// Retained: whoever subscribes later hears it, too.
	lab.Output(client + lab.Need("mosquitto_pub") + " -h mqtt -t topic -r -m hello")
	for _, host := range []string{"mqtt", "1.1.1.1"} {
		equal(t, "mosquitto_sub -h "+host, lab.Output(client+lab.Need("mosquitto_sub")+" -h "+host+" -t topic -C 1 -W 30"), "hello")
	}
	equal(t, "a subscriber of NATS", lab.Output(client+"python3 -c", `
import socket
hears = socket.create_connection(('nats', 4222), timeout=30).makefile('rw', newline='')
hears.write('CONNECT {"verbose":false}\r\nSUB topic 1\r\nPING\r\n')
hears.flush()
assert hears.readline().startswith('INFO ') and hears.readline() == 'PONG\r\n'
says = socket.create_connection(('1.1.1.2', 4222), timeout=30).makefile('rw', newline='')
says.write('CONNECT {"verbose":false}\r\nPUB topic 5\r\nhello\r\n')
says.flush()
print(hears.readline().strip(), hears.readline().strip())`), "MSG topic 1 5 hello")
}

// TestLanguages: servers in PHP, Ruby and Perl, each with clients in all of them.
func TestLanguages(t *testing.T) {
	lab := node(t)
	php, ruby, perl := lab.Need("php"), lab.Need("ruby"), lab.Need("perl")
	lab.WriteFile("www/index.php", `<?php echo $_SERVER["SERVER_NAME"], " ", $_SERVER["REMOTE_ADDR"], "\n";`)
	servers := []struct {
		name string
		args []string
	}{
		{"php", []string{php, "-r", `
$s = stream_socket_server("tcp://0.0.0.0:7000") or exit(1);
while (true) if ($c = @stream_socket_accept($s, 60)) {
    fwrite($c, strtok(stream_socket_get_name($c, false), ":") . " " . strtok(stream_socket_get_name($c, true), ":") . "\n");
    fclose($c);
}`}},
		{"ruby", []string{ruby, "-rsocket", "-e", `
s = TCPServer.new("0.0.0.0", 7000)
loop { Thread.new(s.accept) { |c| c.puts [c.addr(false)[3], c.peeraddr(false)[3]].join(" "); c.close } }`}},
		{"perl", []string{perl, "-MIO::Socket::INET", "-e", `
$SIG{CHLD} = "IGNORE";
$s = IO::Socket::INET->new(LocalPort => 7000, Listen => 9, ReuseAddr => 1) or die $!;
while (1) { $c = $s->accept or next; if (!fork) { print $c $c->sockhost, " ", $c->peerhost, "\n"; exit } close $c }`}},
	}
	clients := map[string][]string{
		"php":  {php, "-r", `$c = fsockopen($argv[1], 7000, $e, $s, 30); echo fgets($c);`},
		"ruby": {ruby, "-rsocket", "-e", `puts TCPSocket.new(ARGV[0], 7000).read`},
		"perl": {perl, "-MIO::Socket::INET", "-e", `$c = IO::Socket::INET->new("$ARGV[0]:7000") or die $!; print <$c>`},
	}
	for i, s := range servers {
		ip := fmt.Sprint("1.1.1.", i+1)
		lab.Start("ax run --ip "+ip+" --name "+s.name+" --", s.args...)
		lab.Serving(ip+":7000", 1)
		for language, client := range clients {
			for _, host := range []string{ip, s.name} {
				equal(t, language+" to "+host, lab.Output("ax run --ip 2.2.2.2 --", append(client, host)...), ip+" 2.2.2.2")
			}
		}
	}
	lab.Start("ax run --ip 1.1.1.9 --name pages -- " + php + " -S 0.0.0.0:80 -t " + lab.Path("www"))
	lab.Serving("1.1.1.9:80", 1)
	for what, client := range map[string][]string{
		"PHP":  {php, "-r", `echo file_get_contents("http://pages/");`},
		"Ruby": {ruby, "-rnet/http", "-e", `puts Net::HTTP.get(URI("http://pages/"))`},
		"Perl": {perl, "-MHTTP::Tiny", "-e", `print HTTP::Tiny->new->get("http://pages/")->{content}`},
	} {
		contains(t, "a page for "+what, lab.Output("ax run --ip 2.2.2.2 --", client...), " 2.2.2.2")
	}
}

// TestNginxReuseport: each of four workers has a listening socket of its own, and the kernel divides the connections among
// them. The socket of a worker that is killed is its successor's.
func TestNginxReuseport(t *testing.T) {
	lab := node(t)
	args := nginx(lab, "reuseport", "four")
	conf := args[len(args)-1]
	text, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	lab.WriteFile("reuseport/nginx.conf", strings.NewReplacer(
		"listen 80 default_server", "listen 80 default_server reuseport",
		"listen [::]:80 default_server", "listen [::]:80 default_server reuseport",
		"location = /id {", `location = /pid { return 200 "$pid\n"; } location = /id {`).Replace(string(text)))
	lab.Start("ax run --ip 1.1.1.1 --name web --", args...)
	lab.Serving("1.1.1.1:80", 1)
	workers := func() (map[string]bool, error) {
		seen := map[string]bool{}
		out := lab.Output("ax run --ip 2.2.2.2 -- " + lab.Need("curl") + " -sS --fail --max-time 30 -H Connection:close http://web/pid?[1-200]")
		for _, pid := range harness.Lines(out) {
			seen[pid] = true
		}
		if len(seen) != 4 {
			return nil, fmt.Errorf("200 requests were answered by %d workers", len(seen))
		}
		return seen, nil
	}
	before, err := workers()
	if err != nil {
		t.Fatal(err)
	}
	for pid := range before {
		lab.Output("kill -KILL " + pid)
		lab.Eventually(runLimit, "four workers again", func() error {
			seen, err := workers()
			if err == nil && seen[pid] {
				err = fmt.Errorf("worker %s answers, which was killed", pid)
			}
			return err
		})
		break
	}
}
