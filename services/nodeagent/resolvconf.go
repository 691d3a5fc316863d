package nodeagent

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"appswitch.io/internal/host"
	"appswitch.io/services/nodeagent/launch/wire"
)

// lookupAttempts is how often a program asks: a lookup that the agent has received, and not answered, when it is killed is
// lost, as datagrams are, and the usual two could meet two such kills. glibc takes no more than five.
const lookupAttempts = "attempts:5"

// writeResolvConf writes what stands in for an application's /etc/resolv.conf: a nameserver on its own loopback, which
// the driver leads to the resolver, and the domain of the cluster ahead of the host's own search list, so that a bare
// name is found with the first query.
func (s *Service) writeResolvConf() error {
	own, err := os.ReadFile("/etc/resolv.conf")
	if err != nil && !os.IsNotExist(err) {
		s.log.Warn("search list of the host is unknown", "error", err)
	}
	path := filepath.Join(s.cfg.RunDir, wire.ResolvConfName)
	if err := os.MkdirAll(s.cfg.RunDir, 0o755); err != nil {
		return host.DirError("--run-dir", err)
	}
	want := resolvConf(own, s.cfg.DNSDomain)
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, want) {
		return nil // who reads it now must not find it empty
	}
	// Written in place: applications have this very file mounted.
	if err := os.WriteFile(path, want, 0o644); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func resolvConf(host []byte, domain string) []byte {
	search := []string{strings.TrimSuffix(domain, ".")}
	var options []string
	lines := bufio.NewScanner(bytes.NewReader(host))
	for lines.Scan() {
		switch fields := strings.Fields(lines.Text()); {
		case len(fields) < 2:
		case fields[0] == "search" || fields[0] == "domain":
			search = append(search[:1], fields[1:]...)
		case fields[0] == "options":
			options = append(options, fields[1:]...)
		}
	}
	if !slices.ContainsFunc(options, func(o string) bool { return strings.HasPrefix(o, "attempts:") }) {
		options = append(options, lookupAttempts)
	}
	var out bytes.Buffer
	out.WriteString("# Name lookups of this program go to AppSwitch.\nnameserver 127.0.0.1\n")
	fmt.Fprintf(&out, "search %s\n", strings.Join(search, " "))
	fmt.Fprintf(&out, "options %s\n", strings.Join(options, " "))
	return out.Bytes()
}
