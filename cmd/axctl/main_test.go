package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"appswitch.io/internal/rpc"
	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	testscript.Main(leakChecked{m}, map[string]func(){"ax": main, "axctl": main})
}

// leakChecked runs the tests and then looks for goroutines that they left.
type leakChecked struct{ m *testing.M }

func (l leakChecked) Run() int {
	code := l.m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// TestScripts runs the command line, as its users do, against a daemon whose service table is the script's table.json.
// $LONELY_ADDR is a node agent that has lost registry and router. Update the expected outputs with UPDATE=1.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		UpdateScripts:       os.Getenv("UPDATE") != "",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"samejson": sameJSON},
		Setup: func(env *testscript.Env) error {
			if err := freePorts(env, 4); err != nil {
				return err
			}
			daemon, err := newFakeDaemon(filepath.Join(env.WorkDir, "table.json"))
			if err != nil {
				return err
			}
			for _, s := range []struct {
				well  bool
				names []string
			}{
				{true, []string{"AX_REGISTRY_ADDR", "AX_ROUTER_ADDR", "AX_RESOLVER_ADDR", "AX_NODEAGENT_ADDR"}},
				{false, []string{"LONELY_ADDR"}},
			} {
				addr, stop, err := daemon.serve(s.well)
				if err != nil {
					return err
				}
				env.Defer(stop)
				for _, name := range s.names {
					env.Setenv(name, addr)
				}
			}
			conn, err := rpc.Dial(env.Getenv("AX_NODEAGENT_ADDR"), rpc.ClientConfig{})
			if err != nil {
				return err
			}
			env.Defer(func() { _ = conn.Close() })
			rest, err := daemon.rest(conn)
			if err != nil {
				return err
			}
			server := httptest.NewServer(rest)
			env.Defer(server.Close)
			env.Setenv("AX_SERVER", server.URL)
			return nil
		},
	})
}

// sameJSON compares two files of JSON, whatever their layout and the order of their lists: samejson a.json b.json.
func sameJSON(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: samejson FILE FILE")
	}
	var values [2]any
	for i, name := range args {
		if err := json.Unmarshal([]byte(ts.ReadFile(name)), &values[i]); err != nil {
			ts.Fatalf("%s: %v", name, err)
		}
		sortLists(values[i])
	}
	if !reflect.DeepEqual(values[0], values[1]) {
		ts.Fatalf("%s and %s differ:\n%s\n%s", args[0], args[1], ts.ReadFile(args[0]), ts.ReadFile(args[1]))
	}
}

// sortLists brings the lists of objects in a JSON value into one order.
func sortLists(value any) {
	object, _ := value.(map[string]any)
	for _, v := range object {
		if list, ok := v.([]any); ok {
			slices.SortFunc(list, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
		}
	}
}

// freePorts names ports of loopback that nobody has: $PORT1 and so on.
func freePorts(env *testscript.Env, n int) error {
	for i := range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer l.Close() // when all have been found, so that they differ
		env.Setenv(fmt.Sprintf("PORT%d", i+1), strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
	}
	return nil
}
