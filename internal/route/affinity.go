package route

import (
	"sync"
	"sync/atomic"
	"time"

	"appswitch.io/internal/ax"
)

const (
	affinityShards        = 64
	maxAffinitiesPerShard = 1024
	// MaxAffinities bounds the clients whose endpoints a Decider remembers. Beyond it one is forgotten for each that
	// comes, and is balanced anew.
	MaxAffinities = affinityShards * maxAffinitiesPerShard
)

// affinityKey is a client of a service.
type affinityKey struct {
	service ServiceKey
	client  client
}

// affinities remember which endpoint a client was sent to. They are this node's own: a client lives on one node.
type affinities struct {
	shards    [affinityShards]affinityShard
	overflows atomic.Uint64
}

type affinityShard struct {
	mu      sync.Mutex // guards all below
	entries map[affinityKey]affinity
	sweep   time.Time // no entry ends before
}

type affinity struct {
	endpoint ax.EndpointID
	until    time.Time
}

func (a *affinities) shard(key affinityKey) *affinityShard {
	h := hashAddrPort(key.service.Proto, key.service.Addr)
	if key.client.addr.IsValid() {
		h ^= hashAddr(key.client.addr)
	} else {
		h ^= hashString(string(key.client.app))
	}
	return &a.shards[mix(h)%affinityShards]
}

// get returns the endpoint that a client keeps, or none.
func (a *affinities) get(key affinityKey, now time.Time) ax.EndpointID {
	s := a.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	entry, ok := s.entries[key]
	if !ok || !now.Before(entry.until) {
		return ""
	}
	return entry.endpoint
}

// put lets a client keep an endpoint for a while from now on.
func (a *affinities) put(key affinityKey, id ax.EndpointID, now time.Time, d time.Duration) {
	s := a.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.entries == nil {
		s.entries = map[affinityKey]affinity{}
	}
	if _, known := s.entries[key]; !known && len(s.entries) >= maxAffinitiesPerShard && !s.expire(now) {
		for victim := range s.entries { // any
			delete(s.entries, victim)
			break
		}
		a.overflows.Add(1)
	}
	until := now.Add(d)
	s.entries[key] = affinity{id, until}
	if len(s.entries) == 1 || until.Before(s.sweep) {
		s.sweep = until
	}
}

// expire drops what has ended and reports whether there was something. The caller holds mu.
func (s *affinityShard) expire(now time.Time) bool {
	if now.Before(s.sweep) {
		return false
	}
	before := len(s.entries)
	s.sweep = time.Time{}
	for key, entry := range s.entries {
		switch {
		case !now.Before(entry.until):
			delete(s.entries, key)
		case s.sweep.IsZero() || entry.until.Before(s.sweep):
			s.sweep = entry.until
		}
	}
	return len(s.entries) < before
}
