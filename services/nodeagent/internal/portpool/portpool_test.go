package portpool

import (
	"slices"
	"strings"
	"sync"
	"testing"
)

func TestNew(t *testing.T) {
	for _, c := range []struct {
		ranges string
		size   int
		in     []uint16
		out    []uint16
	}{
		{"40000-60000,4000", 20002, []uint16{4000, 40000, 60000}, []uint16{3999, 4001, 39999, 60001, 0}},
		{"1", 1, []uint16{1}, []uint16{0, 2}},
		{"65535", 1, []uint16{65535}, []uint16{65534}},
		{"1-65535", 65535, []uint16{1, 65535}, []uint16{0}},
		{" 10 - 12 , 11-13 ,12", 4, []uint16{10, 11, 12, 13}, []uint16{9, 14}},
		{"5-5", 1, []uint16{5}, nil},
	} {
		p, err := New(c.ranges)
		if err != nil {
			t.Errorf("New(%q): %v", c.ranges, err)
			continue
		}
		if p.Size() != c.size || p.Used() != 0 {
			t.Errorf("New(%q): size %d, used %d; want %d, 0", c.ranges, p.Size(), p.Used(), c.size)
		}
		for _, port := range c.in {
			if !p.Contains(port) {
				t.Errorf("New(%q) does not have %d", c.ranges, port)
			}
		}
		for _, port := range c.out {
			if p.Contains(port) || p.Reserve(port) || p.Share(port) || p.Release(port) {
				t.Errorf("New(%q) has %d", c.ranges, port)
			}
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for ranges, names := range map[string]string{
		"":            "a port is missing",
		"4000,":       "a port is missing",
		"0":           `"0"`,
		"65536":       `"65536"`,
		"http":        `"http"`,
		"-5":          "a port is missing",
		"5-":          "a port is missing",
		"10-9":        "write 9-10",
		"1-2-3":       `"2-3"`,
		"40000:50000": `"40000:50000"`,
		"+5":          `"+5"`,
	} {
		_, err := New(ranges)
		if err == nil || !strings.Contains(err.Error(), names) || !strings.Contains(err.Error(), `ports "`+ranges) {
			t.Errorf("New(%q): %v; want an error that says %q", ranges, err, names)
		}
	}
}

func mustNew(t testing.TB, ranges string) *Pool {
	t.Helper()
	p, err := New(ranges)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestTakeRotates(t *testing.T) {
	p := mustNew(t, "7,100-104")
	order := []uint16{7, 100, 101, 102, 103, 104}
	first, _ := p.Take()
	at := slices.Index(order, first)
	for range 3 * len(order) { // released at once, and still not handed out again before all others
		p.Release(order[at])
		at = (at + 1) % len(order)
		if port, ok := p.Take(); !ok || port != order[at] {
			t.Fatalf("Take() = %d, %v; want %d", port, ok, order[at])
		}
	}
}

func TestTakeStartsAnywhere(t *testing.T) {
	seen := map[uint16]bool{}
	for range 200 {
		port, _ := mustNew(t, "1-4").Take()
		seen[port] = true
	}
	if len(seen) != 4 {
		t.Errorf("200 pools of 4 ports began with %v only", seen)
	}
}

func TestExhaustion(t *testing.T) {
	p := mustNew(t, "10-12")
	taken := map[uint16]bool{}
	for range 3 {
		port, ok := p.Take()
		if !ok || taken[port] {
			t.Fatalf("Take() = %d, %v after %v", port, ok, taken)
		}
		taken[port] = true
	}
	if port, ok := p.Take(); ok {
		t.Errorf("Take() = %d from an exhausted pool", port)
	}
	p.Release(11)
	if port, ok := p.Take(); !ok || port != 11 {
		t.Errorf("Take() = %d, %v; want 11, the only free one", port, ok)
	}
}

func TestHolders(t *testing.T) {
	p := mustNew(t, "10-12")
	steps := []struct {
		name string
		do   func(uint16) bool
		port uint16
		want bool
		used int
	}{
		{"share a free port", p.Share, 10, false, 0},
		{"release a free port", p.Release, 10, false, 0},
		{"reserve", p.Reserve, 10, true, 1},
		{"reserve again", p.Reserve, 10, false, 1},
		{"share", p.Share, 10, true, 1},
		{"share again", p.Share, 10, true, 1},
		{"release one of three", p.Release, 10, true, 1},
		{"release two of three", p.Release, 10, true, 1},
		{"reserve while held", p.Reserve, 10, false, 1},
		{"release the last", p.Release, 10, true, 0},
		{"release once too often", p.Release, 10, false, 0},
		{"reserve after release", p.Reserve, 10, true, 1},
	}
	for _, s := range steps {
		if got := s.do(s.port); got != s.want || p.Used() != s.used {
			t.Errorf("%s: %v, %d used; want %v, %d", s.name, got, p.Used(), s.want, s.used)
		}
	}
}

func TestShareIsBounded(t *testing.T) {
	p := mustNew(t, "10")
	p.Reserve(10)
	p.holders[10] = MaxHolders
	if p.Share(10) {
		t.Error("a port has more than MaxHolders")
	}
}

func TestConcurrent(t *testing.T) {
	p := mustNew(t, "100-163")
	var mu sync.Mutex
	owned := map[uint16]bool{}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 2000 {
				port, ok := p.Take()
				if !ok {
					t.Error("64 ports are not enough for 8 holders")
					return
				}
				mu.Lock()
				if owned[port] {
					t.Errorf("port %d has two owners", port)
				}
				owned[port] = true
				mu.Unlock()
				p.Share(port)
				p.Release(port)
				mu.Lock()
				delete(owned, port)
				mu.Unlock()
				p.Release(port)
			}
		})
	}
	wg.Wait()
	if p.Used() != 0 {
		t.Errorf("%d ports are still used", p.Used())
	}
}

func FuzzNew(f *testing.F) {
	for _, s := range []string{"40000-60000,4000", "1", "5-1", ",", "1-65535", "-"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, ranges string) {
		p, err := New(ranges)
		if err != nil {
			return
		}
		port, ok := p.Take()
		if p.Size() < 1 || !ok || !p.Contains(port) || port == 0 {
			t.Errorf("New(%q): %d ports, Take() = %d, %v", ranges, p.Size(), port, ok)
		}
	})
}

func BenchmarkTakeRelease(b *testing.B) {
	p := mustNew(b, "40000-60000")
	for b.Loop() {
		port, _ := p.Take()
		p.Release(port)
	}
}
