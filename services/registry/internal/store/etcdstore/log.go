package etcdstore

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

const maxAttr = 256 // bytes of an attribute

// etcdLog gives etcd a logger that writes its warnings and errors to slog. What etcd reports below that is of interest
// only to those who develop etcd.
type etcdLog struct {
	log      *slog.Logger
	stopping *atomic.Bool // from then on, what etcd says is about listeners closing under it
}

func newLog(log *slog.Logger) *etcdLog {
	return &etcdLog{log: log.With("component", "etcd"), stopping: new(atomic.Bool)}
}

func (l *etcdLog) zap() *zap.Logger { return zap.New(&core{etcdLog: *l}) }

// quiet lowers everything that follows to the debug level.
func (l *etcdLog) quiet() { l.stopping.Store(true) }

// core implements zapcore.Core.
type core struct{ etcdLog }

// expected are warnings that etcd gives about what is intended here; they are logged for debugging only.
var expected = map[string]bool{
	"Running http and grpc server on single port. This is not recommended for production.": true,
	"simple token is not cryptographically signed":                                         true,
	// A new member is asked for its storage version before its first term is on disk. It is asked again soon.
	"Failed to detect schema version":  true,
	"failed to update storage version": true,
}

// Enabled implements zapcore.Core.
func (c *core) Enabled(l zapcore.Level) bool { return l >= zapcore.WarnLevel }

// With implements zapcore.Core.
func (c *core) With(fields []zapcore.Field) zapcore.Core {
	return &core{etcdLog{log: slog.New(c.log.Handler().WithAttrs(attrs(fields))), stopping: c.stopping}}
}

// Check implements zapcore.Core.
func (c *core) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

// Write implements zapcore.Core.
func (c *core) Write(e zapcore.Entry, fields []zapcore.Field) error {
	level := slog.LevelWarn
	switch {
	case c.stopping.Load() && e.Level <= zapcore.ErrorLevel, expected[e.Message]:
		level = slog.LevelDebug
	case e.Level >= zapcore.ErrorLevel:
		level = slog.LevelError
	}
	c.log.LogAttrs(context.Background(), level, "etcd reports", append([]slog.Attr{slog.String("message", e.Message)}, attrs(fields)...)...)
	return nil
}

// Sync implements zapcore.Core.
func (c *core) Sync() error { return nil }

func attrs(fields []zapcore.Field) []slog.Attr {
	enc := zapcore.NewMapObjectEncoder()
	out := make([]slog.Attr, 0, len(fields))
	for _, f := range fields {
		f.AddTo(enc)
		value := enc.Fields[f.Key]
		if text, ok := value.(string); ok && len(text) > maxAttr {
			value = strings.ToValidUTF8(text[:maxAttr], "") + "…" // some are whole requests
		}
		out = append(out, slog.Any(f.Key, value))
	}
	return out
}
