package etcdstore

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"go.uber.org/zap"
)

func TestLog(t *testing.T) {
	var out bytes.Buffer
	log := newLog(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelInfo})))
	lg := log.zap().With(zap.String("member", "m1"))
	lines := func() string {
		defer out.Reset()
		return out.String()
	}
	lg.Info("chatter")
	lg.Warn("simple token is not cryptographically signed")
	if got := lines(); got != "" {
		t.Errorf("logged %q", got)
	}
	lg.Warn("slow", zap.String("request", strings.Repeat("é", 1000)), zap.Int("n", 7))
	if got := lines(); !strings.Contains(got, "level=WARN") || !strings.Contains(got, "message=slow") || !strings.Contains(got, "member=m1") || !strings.Contains(got, "n=7") || len(got) > 600 {
		t.Errorf("logged %q", got)
	}
	lg.Error("bad")
	if got := lines(); !strings.Contains(got, "level=ERROR") {
		t.Errorf("logged %q", got)
	}
	log.quiet()
	lg.Error("listener closed")
	if got := lines(); got != "" {
		t.Errorf("logged while stopping: %q", got)
	}
}
