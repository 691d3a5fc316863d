package launch

import "testing"

func TestFirstUDPOf(t *testing.T) {
	for limit, want := range map[uint64]int{1024: 768, 1023: 767, 1 << 20: 768, ^uint64(0): 768, 256: 192, 20: 15, 4: 3, 1: 0, 0: 0} {
		if got := firstUDPOf(limit); got != want {
			t.Errorf("limit %d: %d, want %d", limit, got, want)
		}
	}
}
