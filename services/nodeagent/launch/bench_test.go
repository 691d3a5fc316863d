package launch_test

import (
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"
)

// BenchmarkTrue compares `ax run true` with `true`, one after the other, so that both meet the same noise. AX_BINARY
// names the binary to measure, or else it is the test's own.
func BenchmarkTrue(b *testing.B) {
	binary := os.Getenv("AX_BINARY")
	if binary == "" {
		binary = "/proc/self/exe"
	}
	dir := b.TempDir()
	startAgent(b, dir, nil)
	var plain, launched []time.Duration
	once := func(path string, args ...string) time.Duration {
		c := exec.CommandContext(b.Context(), path)
		c.Args = args
		c.Env = append(os.Environ(), "AX_RUN_DIR="+dir)
		begin := time.Now()
		if err := c.Run(); err != nil {
			b.Fatal(err)
		}
		return time.Since(begin)
	}
	for b.Loop() {
		plain = append(plain, once("/bin/true", "true"))
		launched = append(launched, once(binary, "ax", "run", "/bin/true"))
	}
	slices.Sort(plain)
	slices.Sort(launched)
	median := func(d []time.Duration) float64 { return float64(d[len(d)/2].Microseconds()) / 1000 }
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(plain), "true-ms")
	b.ReportMetric(median(launched), "ax-ms")
	b.ReportMetric(median(launched)-median(plain), "cost-ms")
}
