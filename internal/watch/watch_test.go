package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/axpb"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeRegistry hands each Watch to the test.
type fakeRegistry struct {
	registryv1.RegistryServiceClient
	opened chan *fakeStream
	refuse error // if set, no stream opens
}

type fakeStream struct {
	grpc.ClientStream
	ctx  context.Context
	req  *registryv1.WatchRequest
	msgs chan *registryv1.WatchResponse
	fail chan error
}

func (f *fakeRegistry) Watch(ctx context.Context, req *registryv1.WatchRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[registryv1.WatchResponse], error) {
	if f.refuse != nil {
		return nil, f.refuse
	}
	s := &fakeStream{ctx: ctx, req: req, msgs: make(chan *registryv1.WatchResponse, 16), fail: make(chan error, 1)}
	select {
	case f.opened <- s:
		return s, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *fakeStream) Recv() (*registryv1.WatchResponse, error) {
	select {
	case m := <-s.msgs:
		return m, nil
	default:
	}
	select {
	case m := <-s.msgs:
		return m, nil
	case err := <-s.fail:
		return nil, err
	case <-s.ctx.Done():
		return nil, status.FromContextError(s.ctx.Err()).Err()
	}
}

// recorder keeps what the handler was told.
type recorder struct {
	table    *Table
	replaced int
	applied  []ax.Revision
}

func (r *recorder) Replace(t *Table) { r.table, r.replaced = t, r.replaced+1 }

func (r *recorder) Apply(e Event) {
	r.table.Apply(e)
	r.applied = append(r.applied, e.Revision)
}

type fixture struct {
	registry *fakeRegistry
	handler  *recorder
	watcher  *Watcher
}

// start runs a watcher inside the synctest bubble.
func start(t *testing.T) *fixture {
	f := &fixture{registry: &fakeRegistry{opened: make(chan *fakeStream)}, handler: &recorder{}}
	w, err := New(Config{
		Service: "test", Client: f.registry, Handler: f.handler, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Metrics: prometheus.NewRegistry(), Kinds: []registryv1.Kind{registryv1.Kind_KIND_NODE},
	})
	if err != nil {
		t.Fatal(err)
	}
	f.watcher = w
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
		if w.Status().Connected {
			t.Error("connected after Run has ended")
		}
	})
	return f
}

func (f *fixture) open(t *testing.T, wantRevision int64, wantTable string) *fakeStream {
	t.Helper()
	select {
	case s := <-f.registry.opened:
		if s.req.GetRevision() != wantRevision || s.req.GetTableId() != wantTable || !slices.Equal(s.req.GetKinds(), []registryv1.Kind{registryv1.Kind_KIND_NODE}) {
			t.Fatalf("watch %v, want revision %d of table %q", s.req, wantRevision, wantTable)
		}
		return s
	case <-time.After(2 * MaxBackoff):
		t.Fatal("no watch was opened")
		return nil
	}
}

func (f *fixture) nodes() []string {
	var out []string
	for name := range f.handler.table.Nodes {
		out = append(out, string(name))
	}
	slices.Sort(out)
	return out
}

func (f *fixture) want(t *testing.T, revision ax.Revision, nodes ...string) {
	t.Helper()
	synctest.Wait()
	if f.handler.table == nil {
		t.Fatalf("no table yet, want %v", nodes)
	}
	if got := f.nodes(); !slices.Equal(got, nodes) || f.handler.table.Revision != revision || f.watcher.Status().Revision != revision {
		t.Fatalf("table %v at %d (status %d), want %v at %d", got, f.handler.table.Revision, f.watcher.Status().Revision, nodes, revision)
	}
}

func node(name string) *registryv1.Change {
	return axpb.Put(ax.Node{Name: ax.NodeName(name), Cluster: "c", Addr: netip.MustParseAddr("10.0.0.1")})
}

func gone(name string) *registryv1.Change { return axpb.Delete(registryv1.Kind_KIND_NODE, name) }

func list(table string, revision int64, complete bool, changes ...*registryv1.Change) *registryv1.WatchResponse {
	return &registryv1.WatchResponse{TableId: table, Revision: revision, List: true, Complete: complete, Changes: changes}
}

func delta(table string, revision int64, changes ...*registryv1.Change) *registryv1.WatchResponse {
	return &registryv1.WatchResponse{TableId: table, Revision: revision, Complete: true, Changes: changes}
}

func TestListThenChangesThenResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t)
		s := f.open(t, 0, "")
		s.msgs <- list("T", 5, false, node("a"), node("b"))
		synctest.Wait()
		if f.handler.table != nil {
			t.Fatal("an incomplete list was acted upon")
		}
		s.msgs <- list("T", 5, true, node("c"))
		f.want(t, 5, "a", "b", "c")
		select {
		case <-f.watcher.Synced():
		default:
			t.Error("not synced after the list")
		}
		s.msgs <- delta("T", 7, gone("a"), node("d"))
		f.want(t, 7, "b", "c", "d")

		s.fail <- status.Error(codes.ResourceExhausted, "too slow")
		synctest.Wait()
		if st := f.watcher.Status(); st.Connected || !st.Synced || st.LastContact.IsZero() {
			t.Errorf("status without a stream: %+v", st)
		}
		if got := f.nodes(); len(got) != 3 {
			t.Errorf("without a stream the table is %v", got)
		}
		s = f.open(t, 7, "T")
		s.msgs <- delta("T", 8, gone("b"))
		f.want(t, 8, "c", "d")
		if f.handler.replaced != 1 || !slices.Equal(f.handler.applied, []ax.Revision{7, 8}) {
			t.Errorf("%d lists and changes %v, want one list and 7, 8", f.handler.replaced, f.handler.applied)
		}
		s.msgs <- list("T", 20, true, node("z")) // what we know is too old
		f.want(t, 20, "z")
	})
}

func TestHeartbeatMovesTheRevision(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t)
		s := f.open(t, 0, "")
		s.msgs <- list("T", 5, true)
		s.msgs <- delta("T", 9)
		synctest.Wait()
		if got := f.watcher.Status().Revision; got != 9 || len(f.handler.applied) != 0 {
			t.Fatalf("revision %d, %d events; want 9 and none", got, len(f.handler.applied))
		}
		before := f.watcher.Status().LastContact
		time.Sleep(time.Second)
		s.msgs <- delta("T", 9)
		synctest.Wait()
		if after := f.watcher.Status().LastContact; !after.After(before) {
			t.Errorf("last contact %s after a heartbeat, was %s", after, before)
		}
	})
}

func TestSilentRegistryIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t)
		s := f.open(t, 0, "")
		s.msgs <- list("T", 5, true, node("a"))
		f.want(t, 5, "a")
		time.Sleep(IdleTimeout + time.Millisecond)
		f.open(t, 5, "T")
	})
}

func TestBrokenContractStartsOver(t *testing.T) {
	for name, msg := range map[string]*registryv1.WatchResponse{
		"revision goes back":   delta("T", 4, gone("a")),
		"changes of another":   delta("U", 6, gone("a")),
		"list broken by delta": delta("T", 6, gone("a")),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := start(t)
				s := f.open(t, 0, "")
				s.msgs <- list("T", 5, true, node("a"))
				f.want(t, 5, "a")
				if name == "list broken by delta" {
					s.msgs <- list("T", 6, false, node("x"))
				}
				s.msgs <- msg
				s = f.open(t, 0, "T")
				if got := f.nodes(); !slices.Equal(got, []string{"a"}) {
					t.Fatalf("table %v before the new list, want what was known", got)
				}
				s.msgs <- list("T", 6, true, node("b"))
				f.want(t, 6, "b")
			})
		})
	}
}

func TestInvalidRecordsAreAbsent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t)
		s := f.open(t, 0, "")
		bad := node("a")
		bad.GetPut().GetNode().Ip = "10.0.0.300"
		s.msgs <- list("T", 5, true, node("a"), node("b"), &registryv1.Change{}, &registryv1.Change{Op: &registryv1.Change_Put{}})
		f.want(t, 5, "a", "b")
		s.msgs <- delta("T", 6, bad)
		f.want(t, 6, "b")
		if got := testutil.ToFloat64(f.watcher.metrics.invalid); got != 3 {
			t.Errorf("%v invalid records counted, want 3", got)
		}
	})
}

func TestReconnectsBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t)
		synctest.Wait()
		f.registry.refuse = errors.New("connection refused")
		s := <-f.registry.opened
		s.fail <- errors.New("broken")
		time.Sleep(time.Minute)
		attempts := testutil.ToFloat64(f.watcher.metrics.reconnects)
		// 50 ms doubling up to 5 s, each half random: a minute has between 12 and 40 of them.
		if attempts < 12 || attempts > 40 {
			t.Errorf("%v attempts in a minute", attempts)
		}
	})
}

func TestNewRefusesAnIncompleteConfig(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("an empty config was accepted")
	}
	registry := prometheus.NewRegistry()
	cfg := Config{Service: "x", Client: &fakeRegistry{}, Handler: &recorder{}, Log: slog.New(slog.DiscardHandler), Metrics: registry}
	if _, err := New(cfg); err != nil {
		t.Fatal(err)
	}
	if _, err := New(cfg); err == nil {
		t.Error("two watchers of one name share metrics")
	}
	cfg.Service = "y"
	if _, err := New(cfg); err != nil {
		t.Errorf("two watchers of different names: %v", err)
	}
}

func TestDiffAndApplyAgree(t *testing.T) {
	a, b := NewTable(), NewTable()
	addr := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}) }
	fill := func(t *Table, from, to int, version string) {
		for i := from; i < to; i++ {
			service := netip.AddrPortFrom(addr(i), 80)
			name := fmt.Sprint("n", i)
			t.Apply(Event{Revision: ax.Revision(to), Changes: []Change{
				{Value: ax.Node{Name: ax.NodeName(name), Version: version, Addr: addr(i)}},
				{Value: ax.App{ID: ax.AppID(name), Name: version, Labels: ax.Labels{"k": version}}},
				{Value: ax.Endpoint{ID: ax.EndpointID(name), Service: service, Name: version}},
				{Value: ax.VirtualService{Name: name, Addr: addr(i), Backends: []ax.Backend{{Addr: addr(i), Weight: 1}}}},
				{Value: ax.Policy{Name: name, Action: ax.PolicyDeny, Ports: []ax.PortRange{{First: uint16(i), Last: uint16(i)}}}},
				{Value: ax.Claim{Addr: addr(i), Name: version}},
			}})
		}
	}
	fill(a, 0, 10, "old")
	fill(b, 5, 10, "old")
	fill(b, 8, 15, "new")
	diff := a.Diff(b)
	// Gone: 0-4 of all six kinds; come: 10-14 of all six; changed: 8 and 9 of the four that carry the version.
	if want := 5*6 + 5*6 + 2*4; len(diff.Changes) != want {
		t.Errorf("%d changes, want %d", len(diff.Changes), want)
	}
	kept := a.Clone()
	a.Apply(diff)
	if rest := a.Diff(b); len(rest.Changes) != 0 || a.Revision != b.Revision || a.Len() != b.Len() {
		t.Errorf("after the diff %d changes are left", len(rest.Changes))
	}
	if len(kept.Diff(b).Changes) != len(diff.Changes) {
		t.Error("the clone changed with the original")
	}
}

func FuzzChangeFrom(f *testing.F) {
	f.Add("10.0.0.1", "a", int32(1), "key")
	f.Add("::ffff:10.0.0.1", "", int32(6), "10.0.0.1")
	f.Fuzz(func(t *testing.T, ip, name string, kind int32, key string) {
		for _, p := range []*registryv1.Change{
			{Op: &registryv1.Change_Delete{Delete: &registryv1.RecordKey{Kind: registryv1.Kind(kind), Key: key}}},
			axpb.Put(ax.Node{Name: ax.NodeName(name)}),
			axpb.Put(ax.Policy{Name: name, Action: ax.PolicyDeny}),
		} {
			if n := p.GetPut().GetNode(); n != nil {
				n.Ip = ip
			}
			c, err := changeFrom(p)
			if c.Kind == registryv1.Kind_KIND_UNSPECIFIED && err == nil {
				t.Fatalf("%v: neither a change nor an error", p)
			}
			if err != nil && c.Value != nil {
				t.Fatalf("%v: value %v along with error %v", p, c.Value, err)
			}
			NewTable().Apply(Event{Changes: []Change{c}}) // whatever it is, it does no harm
		}
	})
}
