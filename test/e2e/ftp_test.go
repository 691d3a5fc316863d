//go:build e2e

package e2e

import (
	"os"
	"strings"
	"testing"
)

// TestSecondPort: a server that tells a client of another port is reached there at once, as soon as its listen has returned.
func TestSecondPort(t *testing.T) {
	lab := node(t)
	script := lab.Program("second_port.py")
	lab.Start("ax run --ip 1.1.1.1 --name two -- python3 " + script + " serve")
	lab.Serving("1.1.1.1:7000", 1)
	equal(t, "clients of a second port", lab.Output("ax run --ip 2.2.2.2 -- python3 "+script+" ask two 50"), "0 refused")
}

// TestFTP: the connections of data go either way: passive ones to a port that the server opens for each, active ones from its
// port 20 to one that the client opens, at the address that the server sees it come from.
func TestFTP(t *testing.T) {
	lab := node(t)
	curl := lab.Need("curl") + " -sS --max-time 30 "
	for _, dir := range []string{"ftp/in", "empty"} {
		if err := os.MkdirAll(lab.Path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(lab.Path("ftp/in"), 0o777); err != nil {
		t.Fatal(err)
	}
	want := writeRandom(t, lab.Path("ftp/big"), 5<<20)
	// Its sandbox is a list of allowed system calls that today's C library exceeds, with or without AppSwitch.
	conf := lab.WriteFile("vsftpd.conf", strings.ReplaceAll(`listen=YES
background=NO
anonymous_enable=YES
anon_root=DIR/ftp
write_enable=YES
anon_upload_enable=YES
anon_umask=022
secure_chroot_dir=DIR/empty
connect_from_port_20=YES
seccomp_sandbox=NO
xferlog_enable=YES
vsftpd_log_file=DIR/vsftpd.log
`, "DIR", lab.Path()))
	lab.Start("ax run --ip 1.1.1.1 --name ftp -- " + lab.Need("vsftpd") + " " + conf)
	lab.Serving("1.1.1.1:21", 1)
	const client = "ax run --ip 2.2.2.2 -- "
	for _, mode := range []string{"", "--disable-epsv ", "--ftp-port - ", "--ftp-port 2.2.2.2:30000-30100 ", "--disable-eprt --ftp-port - "} {
		for _, host := range []string{"1.1.1.1", "ftp"} {
			what := "curl " + mode + host
			verbose := lab.Path("curl.log")
			sum, _, _ := strings.Cut(lab.Output(client+"sh -c", curl+"-v "+mode+"ftp://"+host+"/big 2>"+verbose+" | sha256sum"), " ")
			equal(t, what, sum, want)
			said, err := os.ReadFile(verbose)
			if err != nil {
				t.Fatal(err)
			}
			// It would go on to another mode by itself.
			if strings.Contains(string(said), "refused") || strings.Contains(string(said), "Failed") {
				t.Errorf("%s: %s", what, said)
			}
			lab.Output(client + curl + mode + "-T " + lab.Path("ftp/big") + " ftp://" + host + "/in/up")
			sum, _, _ = strings.Cut(lab.Output("sha256sum "+lab.Path("ftp/in/up")), " ")
			equal(t, what+", upload", sum, want)
			if err := os.Remove(lab.Path("ftp/in/up")); err != nil {
				t.Fatal(err)
			}
		}
	}
	lftp := lab.Need("lftp") + " -c"
	for _, passive := range []string{"on", "off"} {
		script := "set ftp:passive-mode " + passive + "; set net:max-retries 1; open ftp://ftp; mirror -P 3 / " + lab.Path("mirror-"+passive)
		lab.Output(client+lftp, script)
		sum, _, _ := strings.Cut(lab.Output("sha256sum "+lab.Path("mirror-"+passive, "big")), " ")
		equal(t, "lftp, passive mode "+passive, sum, want)
	}
	log, err := os.ReadFile(lab.Path("vsftpd.log"))
	if err != nil {
		t.Fatal(err)
	}
	contains(t, "the server's log", string(log), `CONNECT: Client "2.2.2.2"`)
}
