package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestHelpNamesEveryOption(t *testing.T) {
	const child = "GATEWAYD_CHILD"
	if os.Getenv(child) != "" {
		os.Args = []string{"gatewayd", "--help"}
		main()
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestHelpNamesEveryOption$")
	cmd.Env = append(os.Environ(), child+"=1")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"--rest-port", "--rest-listen", "--registry-addr", "--nodeagent-addr", "--router-addr", "--listen", "curl http://127.0.0.1:6664/v1/apps"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("--help lacks %q", want)
		}
	}
}
