//go:build bench

package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"appswitch.io/test/e2e/harness"
)

// corednsVersion is what we compare with. It is no dependency of ours: it is built aside, once, in the user's cache.
const corednsVersion = "v1.15.0"

// corednsMain is a CoreDNS with the plugins that the comparison needs. The whole of it takes many minutes to build, and
// answers from the plugin hosts in the same way.
const corednsMain = `package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/hosts"
)

func main() {
	dnsserver.Directives = []string{"bind", "hosts"}
	coremain.Run()
}
`

// coredns builds CoreDNS and returns the name of the program.
func coredns(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "appswitch-bench", "coredns-"+corednsVersion)
	program := filepath.Join(dir, "coredns")
	if _, err := os.Stat(program); err == nil {
		return program
	}
	t.Logf("building CoreDNS %s in %s", corednsVersion, dir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"main.go": corednsMain, "go.mod": "module bench\n\ngo 1.26.0\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range []string{"get github.com/coredns/coredns@" + corednsVersion, "mod tidy", "build -o coredns ."} {
		cmd := exec.Command("go", strings.Fields(args)...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOWORK=off", "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go %s in %s: %v\n%s", args, dir, err, out)
		}
	}
	return program
}

// startCoreDNS serves the names of programs/fill at an address.
func startCoreDNS(t *testing.T, lab *harness.Lab, at string) *harness.Proc {
	t.Helper()
	var hosts strings.Builder
	for i := range filled {
		fmt.Fprintf(&hosts, "100.64.%d.%d n%d.appswitch.local\n", i>>8, i&255, i)
	}
	ip, port, _ := strings.Cut(at, ":")
	conf := lab.WriteFile("Corefile", fmt.Sprintf(".:%s {\n\tbind %s\n\thosts %s {\n\t\tttl 5\n\t}\n}\n", port, ip, lab.WriteFile("hosts", hosts.String())))
	p := lab.Start(coredns(t), "-conf", conf, "-quiet")
	lab.Eventually(wait, "CoreDNS answers", func() error { return answers(lab, ip, port) })
	return p
}

// answers asks a server for the last of the names.
func answers(lab *harness.Lab, ip, port string) error {
	name := fmt.Sprintf("n%d.appswitch.local", filled-1)
	if r := lab.Run("dig +tries=1 +time=1 +short @" + ip + " -p " + port + " " + name); strings.TrimSpace(r.Stdout) == "" {
		return fmt.Errorf("%s: %d %s", name, r.Code, r.Stdout)
	}
	return nil
}
