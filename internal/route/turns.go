package route

import (
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
)

const (
	turnShards       = 256
	maxTurnsPerShard = 256
	// MaxTurns bounds the services whose turns a Decider remembers. Beyond it turns are forgotten and start anew,
	// which costs evenness and nothing else.
	MaxTurns = turnShards * maxTurnsPerShard
)

// turns counts round-robin turns by service. Counting is lock-free; only a service seen for the first time takes a
// lock.
type turns struct {
	shards    [turnShards]turnShard
	overflows atomic.Uint64
}

type turnShard struct {
	counters atomic.Pointer[map[ServiceKey]*atomic.Uint64] // never changed in place
	mu       sync.Mutex                                    // held while counters is replaced
}

// next takes a turn. Turns start at random, so that not all nodes begin with the same endpoint.
func (t *turns) next(key ServiceKey) uint64 {
	shard := &t.shards[hashAddrPort(key.Proto, key.Addr)%turnShards]
	if m := shard.counters.Load(); m != nil {
		if c, ok := (*m)[key]; ok {
			return c.Add(1)
		}
	}
	return t.add(shard, key).Add(1)
}

func (t *turns) add(shard *turnShard, key ServiceKey) *atomic.Uint64 {
	shard.mu.Lock()
	defer shard.mu.Unlock()
	grown := map[ServiceKey]*atomic.Uint64{}
	if m := shard.counters.Load(); m != nil {
		if c, ok := (*m)[key]; ok {
			return c
		}
		if len(*m) < maxTurnsPerShard {
			grown = maps.Clone(*m)
		} else {
			t.overflows.Add(1)
		}
	}
	c := new(atomic.Uint64)
	c.Store(uint64(rand.Uint32()))
	grown[key] = c
	shard.counters.Store(&grown)
	return c
}
