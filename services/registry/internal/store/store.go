// Package store is the contract between the registry and what keeps its records: an ordered key-value space with one
// revision per transaction, history, and leases. Package etcdstore keeps it in etcd, package memstore in memory for
// tests, and package storetest holds both to the contract.
//
// Invariant: revisions only grow, every transaction that changes something has one of its own, and a watcher sees
// each transaction once, whole, and in order. Start reading at [Store].
package store

import (
	"context"
	"errors"
	"time"

	"appswitch.io/internal/ax"
)

// MaxOps bounds the operations of a transaction (etcd's own default).
const MaxOps = 128

// The errors of a Store; test for them with errors.Is. Every method may also return ErrUnavailable or the error of
// its context, and the operation may then have taken place or not.
var (
	ErrUnavailable = errors.New("store unavailable")                             // can't be reached now; try again
	ErrConflict    = errors.New("a condition of the transaction does not hold")  // nothing was written
	ErrNoLease     = errors.New("lease not found")                               // expired, revoked or never granted
	ErrCompacted   = errors.New("revision is no longer kept, or not reached")    // list again
	ErrTooLarge    = errors.New("transaction is too large")                      // nothing was written
	ErrFull        = errors.New("store is full: compact, defragment or enlarge") // nothing was written
)

// LeaseID names a lease; 0 is none.
type LeaseID int64

// KV is a stored entry.
type KV struct {
	Key      string
	Value    []byte
	Lease    LeaseID     // under which it lives, or 0
	Revision ax.Revision // of the transaction that last wrote it
}

// Op is one write of a transaction.
type Op struct {
	Key    string
	Delete bool // of the key, whether it exists or not
	Value  []byte
	Lease  LeaseID // under which a put lives; 0: until it is deleted
}

// Condition holds if the key was last written at Revision; 0: if it does not exist.
type Condition struct {
	Key      string
	Revision ax.Revision
}

// Txn is a transaction: if every condition holds, all operations take place at one revision. Each key may be written
// once.
type Txn struct {
	If  []Condition
	Ops []Op
}

// Event is a change of one key. A deletion has a nil Value.
type Event KV

// Batch is all changes of one revision. It may be empty: then nothing has changed up to that revision.
type Batch struct {
	Revision ax.Revision
	Events   []Event
}

// Store keeps entries. Methods may be called from many goroutines, before Run as well: they wait, within their
// context, until the store can be used.
type Store interface {
	// Run keeps the store going until ctx ends and then returns nil. An error means that it can't work at all (its
	// directory is in use, its port taken); being unreachable is none.
	Run(ctx context.Context) error
	// ID returns what identifies the store: it stays the same until the store's content is thrown away.
	ID(ctx context.Context) (string, error)
	// Write carries out a transaction and returns its revision. A transaction that changes nothing may return a
	// revision at which something else happened. ErrConflict, ErrNoLease, ErrTooLarge, ErrFull.
	Write(ctx context.Context, txn Txn) (ax.Revision, error)
	// Get returns the entries of the keys that exist, in the order asked for, as they are now: all writes that
	// have returned are seen. The revision is that of the store.
	Get(ctx context.Context, keys ...string) ([]KV, ax.Revision, error)
	// List returns the entries whose keys start with prefix, by key, as they all were at the revision it returns;
	// writes that have returned are seen, as by Get.
	List(ctx context.Context, prefix string) ([]KV, ax.Revision, error)
	// Watch calls deliver for each revision after the given one, in order, until ctx ends (and returns its error)
	// or the watch breaks: ErrCompacted if what follows the revision is no longer known, or the store has not come
	// that far. deliver must not block.
	Watch(ctx context.Context, after ax.Revision, deliver func(Batch)) error
	// Grant makes a lease that expires when it has not been kept alive for ttl, and returns the ttl in force.
	Grant(ctx context.Context, ttl time.Duration) (LeaseID, time.Duration, error)
	// KeepAlive renews a lease and returns its time to live from now. ErrNoLease.
	KeepAlive(ctx context.Context, id LeaseID) (time.Duration, error)
	// Revoke ends a lease and deletes what lives under it, in one transaction. ErrNoLease.
	Revoke(ctx context.Context, id LeaseID) error
}
