package route

import (
	"net/netip"
	"testing"

	"appswitch.io/internal/ax"
)

func TestTurnsAreBounded(t *testing.T) {
	var turns turns
	for i := range 2 * MaxTurns {
		key := ServiceKey{ax.TCP, netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, byte(18 + i>>16), byte(i >> 8), byte(i)}), 80)}
		if first, second := turns.next(key), turns.next(key); second != first+1 {
			t.Fatalf("service %d: turn %d after %d", i, second, first)
		}
	}
	if turns.overflows.Load() == 0 {
		t.Error("more services than turns, and no overflow was counted")
	}
	held := 0
	for i := range turns.shards {
		held += len(*turns.shards[i].counters.Load())
	}
	if held > MaxTurns {
		t.Errorf("%d turns are held, at most %d may be", held, MaxTurns)
	}
}
