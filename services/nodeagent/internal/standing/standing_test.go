package standing_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"appswitch.io/internal/ax"
	"appswitch.io/services/nodeagent/internal/health"
	"appswitch.io/services/nodeagent/internal/standing"
)

// world is what a board works with: the table as it was told, and what is checked.
type world struct {
	table   map[ax.EndpointID]ax.Endpoint
	checked map[ax.EndpointID]string
	wishes  map[ax.AppID]standing.Wishes
}

func (w *world) PutEndpoint(e ax.Endpoint)        { w.table[e.ID] = e }
func (w *world) UpdateEndpoint(e ax.Endpoint)     { w.table[e.ID] = e }
func (w *world) DropEndpoint(id ax.EndpointID)    { delete(w.table, id) }
func (w *world) Watch(t health.Target)            { w.checked[t.ID] = t.Check.String() }
func (w *world) Forget(id ax.EndpointID)          { delete(w.checked, id) }
func (w *world) wish(id ax.AppID) standing.Wishes { return w.wishes[id] }

// String writes the table as "a/80 healthy draining", an endpoint to a word group, sorted.
func (w *world) String() string {
	var out []string
	for id, e := range w.table {
		text := string(id)
		switch e.Health.State {
		case ax.Healthy:
			text += "+"
		case ax.Unhealthy:
			text += "-" + e.Health.Reason
		}
		if e.Draining {
			text += "!"
		}
		out = append(out, text)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func newWorld() (*world, *standing.Board) {
	w := &world{table: map[ax.EndpointID]ax.Endpoint{}, checked: map[ax.EndpointID]string{}, wishes: map[ax.AppID]standing.Wishes{}}
	b := standing.New(w)
	b.Connect(w, w.wish)
	return w, b
}

func endpoint(app ax.AppID, port uint16) ax.Endpoint {
	at := netip.AddrPortFrom(netip.MustParseAddr("1.1.1.1"), port)
	return ax.Endpoint{ID: ax.EndpointID(fmt.Sprintf("%s/%d", app, port)), App: app, Proto: ax.TCP, Service: at, Host: netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), 40000+port)}
}

func check(t *testing.T, text string) ax.HealthCheck {
	t.Helper()
	c, err := ax.ParseHealthCheck(text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestBoard(t *testing.T) {
	w, b := newWorld()
	w.wishes["a"] = standing.Wishes{Check: check(t, "http:/")}
	w.wishes["p"] = standing.Wishes{Check: check(t, "http:8080/")}
	ill := ax.Health{State: ax.Unhealthy, Reason: "503"}
	for _, step := range []struct {
		what    string
		do      func()
		table   string
		checked string
	}{
		{"they listen", func() {
			b.PutEndpoint(endpoint("a", 80))
			b.PutEndpoint(endpoint("a", 81))
			b.PutEndpoint(endpoint("n", 80))
		}, "a/80 a/81 n/80", "map[a/80:http:/ a/81:http:/]"},
		{"one is well", func() { b.SetHealth("a/80", ax.Health{State: ax.Healthy}) }, "a/80+ a/81 n/80", ""},
		{"the other is ill", func() { b.SetHealth("a/81", ill) }, "a/80+ a/81-503 n/80", ""},
		{"it is drained", func() {
			w.wishes["a"] = standing.Wishes{Check: w.wishes["a"].Check, Draining: true}
			b.Refresh("a")
		}, "a/80+! a/81-503! n/80", ""},
		{"it listens once more while it is drained", func() { b.PutEndpoint(endpoint("a", 82)) }, "a/80+! a/81-503! a/82! n/80", "map[a/80:http:/ a/81:http:/ a/82:http:/]"},
		{"one closes", func() { b.DropEndpoint("a/81") }, "a/80+! a/82! n/80", "map[a/80:http:/ a/82:http:/]"},
		{"a late result of it", func() { b.SetHealth("a/81", ill) }, "a/80+! a/82! n/80", ""},
		{"that is undone", func() {
			w.wishes["a"] = standing.Wishes{}
			b.Refresh("")
		}, "a/80+ a/82 n/80", ""},
		{"they close", func() {
			b.DropEndpoint("a/80")
			b.DropEndpoint("a/82")
			b.DropEndpoint("n/80")
		}, "", "map[]"},
		{"one port speaks for all", func() {
			b.PutEndpoint(endpoint("p", 80))
			b.PutEndpoint(endpoint("p", 8080))
			b.SetHealth("p/8080", ill)
		}, "p/80-503 p/8080-503", "map[p/8080:http:8080/]"},
		{"that one closes", func() { b.DropEndpoint("p/8080") }, "p/80", "map[]"},
	} {
		step.do()
		if got := w.String(); got != step.table {
			t.Errorf("%s: table %q, want %q", step.what, got, step.table)
		}
		if got := fmt.Sprint(w.checked); step.checked != "" && got != step.checked {
			t.Errorf("%s: checked %s, want %s", step.what, got, step.checked)
		}
	}
}
