package publish

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/axpb"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	typev1 "appswitch.io/proto/gen/appswitch/type/v1"
	"appswitch.io/services/nodeagent/internal/grpctest"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// registry is a registry that keeps the contract: leases expire with what was written under them, a node's new lease
// supersedes the old one, transactions are all or nothing.
type registry struct {
	registryv1.UnimplementedRegistryServiceServer

	mu         sync.Mutex
	leases     map[int64]*time.Timer
	superseded map[int64]bool
	current    int64 // lease of the node
	nextLease  int64
	revision   int64
	records    map[string]stored
	journal    []string // every transaction: "+" puts and "-" deletions, in order
	grants     int
	revokes    int

	// before is called at the start of every call; its error is the answer.
	before func(ctx context.Context, method string) error
	// after is called when a transaction has taken place; its error is the answer in spite of it.
	after func() error
}

type stored struct {
	lease int64
	put   *registryv1.Change
}

func newRegistry() *registry {
	return &registry{leases: map[int64]*time.Timer{}, superseded: map[int64]bool{}, records: map[string]stored{}, nextLease: 100}
}

func (r *registry) enter(ctx context.Context, method string) error {
	r.mu.Lock()
	before := r.before
	r.mu.Unlock()
	if before == nil {
		return nil
	}
	return before(ctx, method)
}

// set changes a hook.
func (r *registry) set(change func(*registry)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(r)
}

func (r *registry) GrantLease(ctx context.Context, req *registryv1.GrantLeaseRequest) (*registryv1.GrantLeaseResponse, error) {
	if err := r.enter(ctx, "GrantLease"); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.grants++
	if r.current != 0 {
		r.superseded[r.current] = true
	}
	r.nextLease++
	id := r.nextLease
	ttl := req.GetTtl().AsDuration()
	r.leases[id] = time.AfterFunc(ttl, func() { r.expire(id) })
	r.current = id
	return &registryv1.GrantLeaseResponse{LeaseId: id, Ttl: durationpb.New(ttl)}, nil
}

// expire ends a lease and deletes what lives under it.
func (r *registry) expire(id int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t, ok := r.leases[id]; ok {
		t.Stop()
		delete(r.leases, id)
	}
	maps.DeleteFunc(r.records, func(_ string, s stored) bool { return s.lease == id })
}

func (r *registry) check(id int64) error {
	if _, ok := r.leases[id]; !ok || r.superseded[id] {
		return status.Errorf(codes.FailedPrecondition, "lease %d is gone", id)
	}
	return nil
}

func (r *registry) KeepLease(stream grpc.BidiStreamingServer[registryv1.KeepLeaseRequest, registryv1.KeepLeaseResponse]) error {
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := r.enter(stream.Context(), "KeepLease"); err != nil {
			return err
		}
		if err := r.renew(req.GetLeaseId()); err != nil {
			return err
		}
		if err := stream.Send(&registryv1.KeepLeaseResponse{Ttl: durationpb.New(DefaultTTL)}); err != nil {
			return err
		}
	}
}

func (r *registry) renew(id int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.check(id); err != nil {
		return err
	}
	r.leases[id].Reset(DefaultTTL)
	return nil
}

func (r *registry) RevokeLease(ctx context.Context, req *registryv1.RevokeLeaseRequest) (*registryv1.RevokeLeaseResponse, error) {
	if err := r.enter(ctx, "RevokeLease"); err != nil {
		return nil, err
	}
	r.expire(req.GetLeaseId())
	r.set(func(r *registry) { r.revokes++ })
	return &registryv1.RevokeLeaseResponse{}, nil
}

func (r *registry) Write(ctx context.Context, req *registryv1.WriteRequest) (*registryv1.WriteResponse, error) {
	if err := r.enter(ctx, "Write"); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.check(req.GetLeaseId()); err != nil {
		return nil, err
	}
	if n := len(req.GetChanges()); n == 0 || n > 128 {
		return nil, status.Errorf(codes.InvalidArgument, "%d changes", n)
	}
	var txn []string
	next := maps.Clone(r.records)
	seen := map[string]bool{}
	for _, c := range req.GetChanges() {
		key, done, err := r.change(next, req.GetLeaseId(), c)
		if err != nil || seen[key] {
			return nil, status.Errorf(codes.InvalidArgument, "%s: %v", key, err)
		}
		seen[key] = true
		txn = append(txn, done)
	}
	r.records = next
	r.revision++
	r.journal = append(r.journal, strings.Join(txn, " "))
	if r.after != nil {
		if err := r.after(); err != nil {
			return nil, err
		}
	}
	return &registryv1.WriteResponse{Revision: r.revision}, nil
}

func (r *registry) change(records map[string]stored, lease int64, c *registryv1.Change) (key, done string, err error) {
	if d := c.GetDelete(); d != nil {
		record, err := axpb.RecordKeyFrom(d)
		delete(records, record.Key)
		return record.Key, "-" + record.Key, err
	}
	record, err := axpb.RecordFrom(c.GetPut())
	records[record.Key] = stored{lease, c}
	return record.Key, "+" + record.Key, err
}

func (r *registry) Watch(req *registryv1.WatchRequest, stream grpc.ServerStreamingServer[registryv1.WatchResponse]) error {
	if err := r.enter(stream.Context(), "Watch"); err != nil {
		return err
	}
	r.mu.Lock()
	revision := r.revision
	var changes []*registryv1.Change
	for _, key := range slices.Sorted(maps.Keys(r.records)) {
		changes = append(changes, r.records[key].put)
	}
	r.mu.Unlock()
	for { // in parts of one
		part := changes[:min(1, len(changes))]
		changes = changes[len(part):]
		complete := len(changes) == 0
		if err := stream.Send(&registryv1.WatchResponse{TableId: "t", Revision: revision, List: true, Complete: complete, Changes: part}); err != nil {
			return err
		}
		if complete {
			break
		}
	}
	<-stream.Context().Done()
	return stream.Context().Err()
}

func (r *registry) ClaimAddress(ctx context.Context, req *registryv1.ClaimAddressRequest) (*registryv1.ClaimAddressResponse, error) {
	if err := r.enter(ctx, "ClaimAddress"); err != nil {
		return nil, err
	}
	ip := req.GetIp()
	if ip == "" {
		ip = "198.18.0.1"
	}
	return &registryv1.ClaimAddressResponse{Claim: &typev1.AddressClaim{Ip: ip, Name: req.GetName()}}, nil
}

// table returns the keys in the table that live under a lease that is alive.
func (r *registry) table() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(slices.Sorted(maps.Keys(r.records)), " ")
}

// transactions returns what was written since it was last called.
func (r *registry) transactions() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	j := r.journal
	r.journal = nil
	return j
}

var node = ax.Node{Name: "n1", Cluster: "c", Addr: netip.MustParseAddr("10.0.0.1"), Driver: "user"}

// rig is a publisher with its registry.
type rig struct {
	*Publisher
	t        *testing.T
	registry *registry
	server   *grpctest.Server
	log      *bytes.Buffer
	metrics  *prometheus.Registry
	stop     func() // ends Run and waits for it
}

// bubble runs a test with a publisher in a synctest bubble; time passes only while everything waits.
func bubble(t *testing.T, cfg Config, test func(*rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		g := &rig{t: t, registry: newRegistry(), log: &bytes.Buffer{}, metrics: prometheus.NewRegistry(), stop: func() {}}
		var conn *grpc.ClientConn
		g.server, conn = grpctest.Start(t, func(s grpc.ServiceRegistrar) { registryv1.RegisterRegistryServiceServer(s, g.registry) })
		cfg.Node = node
		var err error
		if g.Publisher, err = New(cfg, Deps{
			Client: registryv1.NewRegistryServiceClient(conn), Log: slog.New(slog.NewTextHandler(g.log, nil)), Metrics: g.metrics,
		}); err != nil {
			t.Fatal(err)
		}
		defer func() { g.stop() }()
		test(g)
	})
}

// start runs the publisher.
func (g *rig) start() {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	g.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			g.t.Errorf("Run: %v", err)
		}
	})
	synctest.Wait()
}

// expect waits until nothing more happens at this moment, and compares the table.
func (g *rig) expect(table string) {
	g.t.Helper()
	synctest.Wait()
	if got := g.registry.table(); got != table {
		g.t.Errorf("table is %q, want %q", got, table)
	}
}

func (g *rig) expectStats(want Stats) {
	g.t.Helper()
	synctest.Wait()
	if got := g.Stats(); got != want {
		g.t.Errorf("stats are %+v, want %+v", got, want)
	}
}

func app(n int) ax.App {
	return ax.App{
		ID: ax.AppID(fmt.Sprintf("a%d", n)), Name: "web", Node: node.Name, Cluster: node.Cluster,
		Addr: netip.MustParseAddr("1.1.1.1"), Driver: "user", Labels: ax.DefaultLabels(), Start: time.Unix(1, 0).UTC(),
	}
}

func endpoint(n int) ax.Endpoint {
	return ax.Endpoint{
		ID: ax.EndpointID(fmt.Sprintf("e%d", n)), App: "a1", Node: node.Name, Cluster: node.Cluster, Proto: ax.TCP,
		Service: netip.MustParseAddrPort("1.1.1.1:80"), Host: netip.MustParseAddrPort("10.0.0.1:40000"), Labels: ax.DefaultLabels(),
	}
}
