//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"appswitch.io/test/e2e/harness"
)

// sshd returns the command line of an OpenSSH server that admits root by a key, and the options of a client that has it.
func sshd(t *testing.T, lab *harness.Lab) (server []string, options string) {
	t.Helper()
	// Debian's unit makes the directory in which the process that talks to strangers is locked up.
	const cell = "/run/sshd"
	if err := os.Mkdir(cell, 0o755); err == nil {
		t.Cleanup(func() { _ = os.Remove(cell) })
	} else if !os.IsExist(err) {
		t.Fatal(err)
	}
	for _, key := range []string{"host", "user"} {
		lab.Output("ssh-keygen -q -t ed25519 -f "+lab.Path(key)+" -N", "")
	}
	public, err := os.ReadFile(lab.Path("user.pub"))
	if err != nil {
		t.Fatal(err)
	}
	keys := lab.WriteFile("authorized_keys", string(public))
	conf := lab.WriteFile("sshd_config", `
HostKey `+lab.Path("host")+`
PidFile none
AuthorizedKeysFile `+keys+`
StrictModes no
UsePAM yes
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
GatewayPorts clientspecified
MaxStartups 100
UseDNS yes
Subsystem sftp internal-sftp
`)
	return []string{lab.Need("sshd"), "-D", "-e", "-f", conf},
		" -F none -i " + lab.Path("user") + " -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR "
}

// TestSSH: a server that locks up the process for each stranger (chroot, its own seccomp filter) and forks another for each
// login, 100 MB each way, and the ports that both ends forward.
func TestSSH(t *testing.T) {
	lab := node(t)
	server, options := sshd(t, lab)
	daemon := lab.Start("ax run --ip 1.1.1.1 --name shell --", server...)
	lab.Start("ax run --ip 1.1.1.2 --name web --", lab.GoProgram("goserver"), "-listen", ":80", "-id", "page")
	lab.Serving("1.1.1.1:22", 1)
	lab.Serving("1.1.1.2:80", 1)
	ssh := lab.Need("ssh") + options
	for _, host := range []string{"1.1.1.1", "shell"} {
		out := lab.Output("ax run --ip 2.2.2.2 -- "+ssh+"root@"+host, "echo $SSH_CONNECTION; exit 0")
		if f := strings.Fields(out); len(f) != 4 || f[0] != "2.2.2.2" || f[2] != "1.1.1.1" || f[3] != "22" {
			t.Errorf("SSH_CONNECTION by %s: %q", host, out)
		}
		if r := lab.Run("ax run -- "+ssh+"root@"+host, "exit 7"); r.Code != 7 {
			t.Errorf("exit status through ssh: %+v", r)
		}
	}
	contains(t, "the server's log", daemon.Stderr(), "from 2.2.2.2 port")

	if err := os.Mkdir(lab.Path("www"), 0o755); err != nil {
		t.Fatal(err)
	}
	big := lab.Path("www", "big")
	want := writeRandom(t, big, 100<<20)
	for what, script := range map[string]string{
		"100 MB to the server":   ssh + "root@shell sha256sum <" + big,
		"100 MB from the server": ssh + "root@1.1.1.1 cat " + big + " | sha256sum",
		"a file by scp":          "scp -q" + options + big + " root@shell:" + lab.Path("copy") + " && sha256sum <" + lab.Path("copy"),
	} {
		sum, _, _ := strings.Cut(lab.Output("ax run -- sh -c", script), " ")
		equal(t, what, sum, want)
	}
}

// TestSSHForwarding: ports that the client listens on, that the server listens on, on loopback and for others, and SOCKS.
func TestSSHForwarding(t *testing.T) {
	lab := node(t)
	server, options := sshd(t, lab)
	lab.Start("ax run --ip 1.1.1.1 --name shell --", server...)
	goserver := lab.GoProgram("goserver")
	lab.Start("ax run --ip 1.1.1.2 --name web -- " + goserver + " -listen :80 -id page")
	lab.Serving("1.1.1.1:22", 1)
	lab.Serving("1.1.1.2:80", 1)
	ssh := lab.Need("ssh") + options + "-o ExitOnForwardFailure=yes "
	const curl = "curl -sS --max-time 10 "

	// The client's application has a server of its own on its loopback, and a connection that other calls share.
	socket := lab.Path("mux")
	client := lab.Start("ax run --ip 2.2.2.2 -- sh -c", goserver+" -listen 127.0.0.1:7000 -id mine & exec "+ssh+"-M -S "+socket+
		" -N -L 127.0.0.1:8001:web:80 -L 0.0.0.0:8002:1.1.1.2:80 -R 127.0.0.1:9001:127.0.0.1:7000 -R *:9002:127.0.0.1:7000 -D 0.0.0.0:1080 root@shell")
	for _, address := range []string{"2.2.2.2:8002", "2.2.2.2:1080", "1.1.1.1:9002"} {
		lab.Serving(address, 1)
	}
	shared := "ax run --ip 2.2.2.2 -- " + ssh + "-S " + socket + " root@shell "
	equal(t, "a second session over the same connection", lab.Output(shared+"echo second"), "second")
	equal(t, "local forwarding for others", lab.Output("ax run -- "+curl+"http://2.2.2.2:8002/"), "page")
	equal(t, "remote forwarding for others", lab.Output("ax run -- "+curl+"http://shell:9002/"), "mine")
	equal(t, "remote forwarding to the server's loopback", lab.Output(shared+curl+"http://127.0.0.1:9001/"), "mine")
	refused(t, lab, "what is forwarded to the server's loopback, from outside", "ax run --", "http://shell:9001/")
	equal(t, "SOCKS, the name looked up at the other end",
		lab.Output("ax run -- "+curl+"--socks5-hostname 2.2.2.2:1080 http://web/"), "page")
	out := lab.Output("ax run -- sh -c", ssh+"-f -L 127.0.0.1:8001:web:80 root@1.1.1.1 sleep 5; "+curl+"http://localhost:8001/")
	equal(t, "local forwarding to one's own loopback", out, "page")

	// A port that the server picks, and one that is taken.
	r := lab.Run(shared + "-O forward -R 0:127.0.0.1:7000")
	port := strings.TrimSpace(r.Stdout)
	if r.Code != 0 || port == "" {
		t.Fatalf("a port that the server picks: %+v", r)
	}
	equal(t, "that port on the server's loopback", lab.Output(shared+curl+fmt.Sprintf("http://localhost:%s/", port)), "mine")
	if r := lab.Run("ax run -- " + ssh + "-N -R 127.0.0.1:9001:web:80 root@shell"); r.Code == 0 {
		t.Errorf("a port forwarded twice: %+v, want a failure", r)
	}
	client.Stop()
}
