// Package etcdstore keeps the store in etcd: in a server of its own inside this process, or in a cluster reached over
// the network.
//
// Invariant: nothing but this package knows that it is etcd. The embedded server is spoken to in-process (no socket,
// no copy through the kernel), so that a write costs what raft and the disk cost: one fsync. Start reading at
// [Store.Run]; the contract is in package store.
package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path"
	"strings"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/services/registry/internal/store"
	"github.com/google/uuid"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// DefaultPrefix is where the table lives in etcd, so that it can share a cluster.
const DefaultPrefix = "/appswitch/v1/"

// Limits.
const (
	pageSize       = 4096            // entries fetched at a time by List
	requestTimeout = 4 * time.Second // of a request to etcd, whatever its caller's deadline
	connectTimeout = 2 * time.Second // of one attempt to connect to an external etcd
	firstReconnect = 50 * time.Millisecond
	maxReconnect   = time.Second // an external etcd that comes back is found at least this soon
)

// Config says which etcd to use.
type Config struct {
	Endpoints     []string   // of an external cluster; none: embed a server
	Dir           string     // of the embedded server's data
	Listen        netip.Addr // where the embedded server listens; invalid: only on a socket in Dir
	ClientPort    uint16     // with Listen
	PeerPort      uint16     // with Listen
	UnsafeNoFsync bool       // loses data with the machine's power: for tests and measurements
	Prefix        string     // of all keys; empty: DefaultPrefix
	Log           *slog.Logger
}

// Store implements store.Store.
type Store struct {
	cfg    Config
	prefix string           // of the table's keys
	idKey  string           // holds the store's id; outside prefix
	ready  chan struct{}    // closed when client is set
	client *clientv3.Client // read only after ready
	log    *etcdLog
	done   chan struct{} // closed when Run has ended
}

var _ store.Store = (*Store)(nil)

// New returns a store; Run starts it.
func New(cfg Config) (*Store, error) {
	if cfg.Log == nil {
		return nil, errors.New("etcdstore: Log is required")
	}
	if len(cfg.Endpoints) == 0 && cfg.Dir == "" {
		return nil, errors.New("etcdstore: Endpoints or Dir is required")
	}
	if cfg.Prefix == "" {
		cfg.Prefix = DefaultPrefix
	}
	return &Store{
		cfg: cfg, log: newLog(cfg.Log), prefix: path.Join("/", cfg.Prefix, "table") + "/", idKey: path.Join("/", cfg.Prefix, "id"),
		ready: make(chan struct{}), done: make(chan struct{}),
	}, nil
}

// Run implements store.Store. It can be called once.
func (s *Store) Run(ctx context.Context) error {
	defer close(s.done)
	if len(s.cfg.Endpoints) > 0 {
		return s.runExternal(ctx)
	}
	return s.runEmbedded(ctx)
}

func (s *Store) runExternal(ctx context.Context) error {
	client, err := clientv3.New(clientv3.Config{
		Endpoints:            s.cfg.Endpoints,
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 5 * time.Second,
		AutoSyncInterval:     0, // the endpoints are configured, and members may advertise addresses out of reach
		Logger:               s.log.zap(),
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: firstReconnect, Multiplier: 1.6, Jitter: 0.2, MaxDelay: maxReconnect},
			MinConnectTimeout: connectTimeout,
		})},
	})
	if err != nil {
		return fmt.Errorf("connect to etcd at %s: %w", strings.Join(s.cfg.Endpoints, ","), err)
	}
	s.client = client
	close(s.ready)
	<-ctx.Done()
	s.log.quiet()
	if err := client.Close(); err != nil && !errors.Is(err, context.Canceled) {
		s.cfg.Log.Warn("etcd connection not closed cleanly", "error", err)
	}
	return nil
}

// use waits for the client and bounds the request: no caller waits long for an etcd that is away.
func (s *Store) use(ctx context.Context) (*clientv3.Client, context.Context, context.CancelFunc, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	if err := s.wait(ctx); err != nil {
		cancel()
		return nil, nil, nil, err
	}
	return s.client, ctx, cancel, nil
}

func (s *Store) wait(ctx context.Context) error {
	select {
	case <-s.done:
		return fmt.Errorf("%w: it has been stopped", store.ErrUnavailable)
	default:
	}
	select {
	case <-s.ready:
		return nil
	case <-s.done:
		return fmt.Errorf("%w: it has been stopped", store.ErrUnavailable)
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.Canceled) {
			return ctx.Err()
		}
		return fmt.Errorf("%w: etcd has not started yet", store.ErrUnavailable)
	}
}

// ID implements store.Store: a random id, written by whoever comes first.
func (s *Store) ID(ctx context.Context) (string, error) {
	c, ctx, cancel, err := s.use(ctx)
	if err != nil {
		return "", err
	}
	defer cancel()
	resp, err := c.Get(ctx, s.idKey)
	if err != nil {
		return "", storeError(err)
	}
	if len(resp.Kvs) > 0 {
		return string(resp.Kvs[0].Value), nil
	}
	txn, err := c.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(s.idKey), "=", 0)).
		Then(clientv3.OpPut(s.idKey, uuid.NewString())).
		Commit()
	if err != nil {
		return "", storeError(err)
	}
	s.cfg.Log.Info("service table created", "revision", txn.Header.GetRevision())
	if resp, err = c.Get(ctx, s.idKey); err != nil {
		return "", storeError(err)
	}
	if len(resp.Kvs) == 0 {
		return "", fmt.Errorf("%w: the id of the table was removed", store.ErrUnavailable)
	}
	return string(resp.Kvs[0].Value), nil
}

// Write implements store.Store.
func (s *Store) Write(ctx context.Context, t store.Txn) (ax.Revision, error) {
	if len(t.Ops) > store.MaxOps || len(t.If) > store.MaxOps {
		return 0, fmt.Errorf("%w: %d operations under %d conditions, at most %d", store.ErrTooLarge, len(t.Ops), len(t.If), store.MaxOps)
	}
	c, ctx, cancel, err := s.use(ctx)
	if err != nil {
		return 0, err
	}
	defer cancel()
	conditions := make([]clientv3.Cmp, len(t.If))
	for i, cond := range t.If {
		conditions[i] = clientv3.Compare(clientv3.ModRevision(s.prefix+cond.Key), "=", int64(cond.Revision))
	}
	ops := make([]clientv3.Op, len(t.Ops))
	for i, op := range t.Ops {
		if op.Delete {
			ops[i] = clientv3.OpDelete(s.prefix + op.Key)
		} else {
			ops[i] = clientv3.OpPut(s.prefix+op.Key, string(op.Value), clientv3.WithLease(clientv3.LeaseID(op.Lease)))
		}
	}
	resp, err := c.Txn(ctx).If(conditions...).Then(ops...).Commit()
	if err != nil {
		return 0, storeError(err)
	}
	if !resp.Succeeded {
		return 0, store.ErrConflict
	}
	return ax.Revision(resp.Header.GetRevision()), nil
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, keys ...string) ([]store.KV, ax.Revision, error) {
	c, ctx, cancel, err := s.use(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer cancel()
	if len(keys) == 0 {
		keys = []string{""} // the prefix itself, which is no entry: asks for the revision
	}
	ops := make([]clientv3.Op, len(keys))
	for i, key := range keys {
		ops[i] = clientv3.OpGet(s.prefix + key)
	}
	resp, err := c.Txn(ctx).Then(ops...).Commit()
	if err != nil {
		return nil, 0, storeError(err)
	}
	var out []store.KV
	for _, r := range resp.Responses {
		for _, kv := range r.GetResponseRange().GetKvs() {
			out = append(out, s.kv(kv))
		}
	}
	return out, ax.Revision(resp.Header.GetRevision()), nil
}

// List implements store.Store. It reads page by page, all at the revision of the first.
func (s *Store) List(ctx context.Context, prefix string) ([]store.KV, ax.Revision, error) {
	if err := s.wait(ctx); err != nil {
		return nil, 0, err
	}
	first := s.prefix + prefix
	from, end := first, clientv3.GetPrefixRangeEnd(first)
	var (
		out []store.KV
		at  ax.Revision
	)
	for {
		resp, err := s.page(ctx, from, end, at)
		if err != nil {
			return nil, 0, err
		}
		at = resp.revision
		out = append(out, resp.kvs...)
		if !resp.more || len(resp.kvs) == 0 {
			return out, at, nil
		}
		from = s.prefix + resp.kvs[len(resp.kvs)-1].Key + "\x00"
	}
}

type page struct {
	kvs      []store.KV
	revision ax.Revision
	more     bool
}

func (s *Store) page(ctx context.Context, from, end string, at ax.Revision) (page, error) {
	c, ctx, cancel, err := s.use(ctx)
	if err != nil {
		return page{}, err
	}
	defer cancel()
	resp, err := c.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(pageSize), clientv3.WithRev(int64(at)))
	if err != nil {
		return page{}, storeError(err)
	}
	p := page{revision: at, more: resp.More}
	if at == 0 {
		p.revision = ax.Revision(resp.Header.GetRevision())
	}
	for _, kv := range resp.Kvs {
		p.kvs = append(p.kvs, s.kv(kv))
	}
	return p, nil
}

// storeError translates what etcd says into the errors of the contract, keeping its text.
func storeError(err error) error {
	kind := store.ErrUnavailable
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		kind = store.ErrNoLease
	case errors.Is(err, rpctypes.ErrCompacted), errors.Is(err, rpctypes.ErrFutureRev):
		kind = store.ErrCompacted
	case errors.Is(err, rpctypes.ErrRequestTooLarge), errors.Is(err, rpctypes.ErrTooManyOps):
		kind = store.ErrTooLarge
	case errors.Is(err, rpctypes.ErrNoSpace):
		kind = store.ErrFull
	default:
		switch code(err) {
		case codes.InvalidArgument, codes.PermissionDenied, codes.Unauthenticated, codes.Internal:
			return fmt.Errorf("etcd: %w", err)
		}
	}
	return fmt.Errorf("%w: etcd: %w", kind, err)
}

func code(err error) codes.Code {
	var e rpctypes.EtcdError
	if errors.As(err, &e) {
		return e.Code()
	}
	return status.Code(err)
}
