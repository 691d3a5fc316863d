//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"

	"appswitch.io/test/e2e/harness"
)

// TestGRPC: the two implementations of gRPC, in Go and in C, as servers and as clients of each other: large messages, and
// many streams over one connection.
func TestGRPC(t *testing.T) {
	lab := node(t)
	golang := lab.GoProgram("grpcecho")
	core := lab.Need("python3") + " " + lab.Program("grpc_echo.py")
	servers := []struct{ name, line, listen string }{
		{"go", golang, ":50051"},
		{"core", core, "[::]:50051"},
		{"core4", core, "0.0.0.0:50051"},
	}
	for i, s := range servers {
		ip := fmt.Sprintf("1.1.1.%d", i+1)
		lab.Start(fmt.Sprintf("ax run --ip %s --name grpc-%s -- %s serve %s", ip, s.name, s.line, s.listen))
		lab.Serving(ip+":50051", 1)
	}
	type running struct {
		what string
		*harness.Proc
	}
	var calls []running
	for i, s := range servers {
		for client, line := range map[string]string{"go": golang, "core": core} {
			for _, host := range []string{fmt.Sprintf("1.1.1.%d", i+1), "dns:///grpc-" + s.name} {
				what := "client in " + client + " to " + host + " as the server in " + s.name + " sees it"
				calls = append(calls, running{what, lab.Start("ax run --ip 2.2.2.2 -- " + line + " call " + host + ":50051")})
			}
		}
	}
	for _, c := range calls {
		r := c.Wait(runLimit)
		if r.Code != 0 || !strings.Contains(r.Stdout, "2.2.2.2:") {
			t.Errorf("%s: %+v, want its address", c.what, r)
		}
	}
}
