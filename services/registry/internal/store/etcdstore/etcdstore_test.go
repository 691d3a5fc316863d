package etcdstore_test

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"appswitch.io/services/registry/internal/store"
	"appswitch.io/services/registry/internal/store/etcdstore"
	"appswitch.io/services/registry/internal/store/storetest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// run starts a store and stops it when the test ends; stop may be called earlier.
func run(t *testing.T, cfg etcdstore.Config) (s *etcdstore.Store, stop func()) {
	t.Helper()
	cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	s, err := etcdstore.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("run: %v", err)
			}
		case <-time.After(30 * time.Second):
			t.Error("run does not end")
		}
	}
	t.Cleanup(stop)
	return s, stop
}

func TestContractEmbedded(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		s, _ := run(t, etcdstore.Config{Dir: t.TempDir(), UnsafeNoFsync: true})
		return s
	})
}

// One server over TCP serves all subtests; each has a prefix of its own.
func TestContractExternal(t *testing.T) {
	endpoint := serve(t, t.TempDir(), freePorts(t, 2))
	storetest.Run(t, func(t *testing.T) store.Store {
		s, _ := run(t, etcdstore.Config{Endpoints: []string{endpoint.addr}, Prefix: "/test/" + filepath.Base(t.Name())})
		return s
	})
}

type endpoint struct {
	addr string
	stop func()
}

func serve(t *testing.T, dir string, ports []uint16) endpoint {
	t.Helper()
	loopback := netip.MustParseAddr("127.0.0.1")
	s, stop := run(t, etcdstore.Config{Dir: dir, Listen: loopback, ClientPort: ports[0], PeerPort: ports[1], UnsafeNoFsync: true})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for { // its own requests are bounded
		if _, err := s.ID(ctx); err == nil {
			break
		} else if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
	return endpoint{addr: netip.AddrPortFrom(loopback, ports[0]).String(), stop: stop}
}

func freePorts(t *testing.T, n int) []uint16 {
	t.Helper()
	var ports []uint16
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).AddrPort().Port())
	}
	return ports
}

func TestStateSurvivesRestart(t *testing.T) {
	dir := t.TempDir()
	s, stop := run(t, etcdstore.Config{Dir: dir})
	id, err := s.ID(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Write(t.Context(), store.Txn{Ops: []store.Op{{Key: "k", Value: []byte("v")}}})
	if err != nil {
		t.Fatal(err)
	}
	stop()
	if _, err := s.ID(t.Context()); err == nil {
		t.Error("a stopped store still answers")
	}
	s, _ = run(t, etcdstore.Config{Dir: dir})
	if again, err := s.ID(t.Context()); err != nil || again != id {
		t.Errorf("id %q, error %v; was %q", again, err, id)
	}
	if kvs, _, err := s.Get(t.Context(), "k"); err != nil || len(kvs) != 1 || kvs[0].Revision != r {
		t.Errorf("entry after restart: %v, error %v", kvs, err)
	}
}

func TestDirectoryInUse(t *testing.T) {
	dir := t.TempDir()
	first, _ := run(t, etcdstore.Config{Dir: dir, UnsafeNoFsync: true})
	if _, err := first.ID(t.Context()); err != nil {
		t.Fatal(err)
	}
	second, err := etcdstore.New(etcdstore.Config{Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := second.Run(ctx); err == nil || !strings.Contains(err.Error(), "--state-dir") {
		t.Fatalf("second store in one directory: %v, want an error that names --state-dir", err)
	}
}

func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().(*net.TCPAddr).AddrPort()
	s, err := etcdstore.New(etcdstore.Config{
		Dir: t.TempDir(), Listen: taken.Addr(), ClientPort: taken.Port(), PeerPort: freePorts(t, 1)[0], Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := s.Run(ctx); err == nil || !strings.Contains(err.Error(), "--etcd-client-port") {
		t.Fatalf("run on a taken port: %v, want an error that names the flag", err)
	}
}

// An external etcd may be away when the store starts, come, and go.
func TestExternalComesAndGoes(t *testing.T) {
	dir, ports := t.TempDir(), freePorts(t, 2)
	addr := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), ports[0]).String()
	s, _ := run(t, etcdstore.Config{Endpoints: []string{addr}})
	write := func(key string) error {
		_, err := s.Write(t.Context(), store.Txn{Ops: []store.Op{{Key: key, Value: []byte("v")}}})
		return err
	}
	if err := write("early"); err == nil {
		t.Fatal("written without etcd")
	}
	eventually := func(key string) {
		t.Helper()
		deadline := time.Now().Add(30 * time.Second)
		for err := write(key); err != nil; err = write(key) {
			if time.Now().After(deadline) {
				t.Fatalf("etcd is back, but: %v", err)
			}
		}
	}
	e := serve(t, dir, ports)
	eventually("first")
	_, start, err := s.Get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	seen := make(chan string, 16)
	watchCtx, cancel := context.WithCancel(t.Context())
	watched := make(chan error, 1)
	go func() {
		watched <- s.Watch(watchCtx, start, func(b store.Batch) {
			for _, ev := range b.Events {
				seen <- ev.Key
			}
		})
	}()
	e.stop()
	serve(t, dir, ports)
	eventually("second")
	select {
	case key := <-seen:
		if key != "second" {
			t.Errorf("watch delivered %q", key)
		}
	case <-time.After(30 * time.Second):
		t.Error("the watch did not survive the restart")
	}
	cancel()
	<-watched
}
