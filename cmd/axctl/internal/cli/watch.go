package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"appswitch.io/cmd/axctl/internal/output"
	"google.golang.org/protobuf/proto"
)

// watchEvery is how soon a stream that ended is opened again, and how often a list that has no stream is looked at.
const watchEvery = 500 * time.Millisecond

// untilInterrupt returns a context that ends with SIGINT or SIGTERM: how commands end that go on until then.
func untilInterrupt(parent context.Context) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(parent, os.Interrupt, syscall.SIGTERM)
}

// event is what happened to a resource between two looks.
type event string

const (
	added    event = "ADDED"
	modified event = "MODIFIED"
	deleted  event = "DELETED"
)

var eventTones = map[event]output.Tone{added: output.Good, modified: output.Doubtful, deleted: output.Bad}

// change is a resource with what happened to it.
type change[T proto.Message] struct {
	event event
	item  item[T]
}

// changes compares two lists, in the order of the later one; what is gone comes first, in the order of the earlier.
func (r resource[T]) changes(before, after []item[T]) []change[T] {
	key := func(it item[T]) string { return r.names(it.msg)[0] }
	was := map[string]item[T]{}
	for _, it := range before {
		was[key(it)] = it
	}
	is := map[string]bool{}
	for _, it := range after {
		is[key(it)] = true
	}
	var out []change[T]
	for _, it := range before {
		if !is[key(it)] {
			out = append(out, change[T]{deleted, it})
		}
	}
	for _, it := range after {
		old, known := was[key(it)]
		switch {
		case !known:
			out = append(out, change[T]{added, it})
		case !bytes.Equal(old.raw, it.raw) || !proto.Equal(old.msg, it.msg):
			out = append(out, change[T]{modified, it})
		}
	}
	return out
}

// watch writes the list, then whatever changes in it, until ctx ends, which is no error. lists calls its argument with the
// list as often as it knows it anew; when it returns it is called again. A daemon that goes away later is waited for.
func (r resource[T]) watch(ctx context.Context, w *watchWriter[T], lists func(context.Context, func([]item[T]) error) error) error {
	var (
		before      []item[T]
		failed      error // to write
		known, away bool
	)
	for {
		err := lists(ctx, func(items []item[T]) error {
			failed = w.write(r.changes(before, items), !known)
			before, known, away = items, true, false
			return failed
		})
		switch {
		case failed != nil:
			return failed
		case ctx.Err() != nil:
			return nil //nolint:nilerr // it broke because it was to end
		case err != nil && !known:
			return err
		case err != nil && !away:
			fmt.Fprintf(w.errOut, "ax: %v; still watching\n", err)
			away = true
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(watchEvery):
		}
	}
}

// watchWriter writes changes in one format.
type watchWriter[T proto.Message] struct {
	r           resource[T]
	out, errOut io.Writer
	format      output.Format
	headers     bool
	widths      []int // of the columns so far: they never become narrower
}

// write writes changes, with the header first.
func (w *watchWriter[T]) write(changes []change[T], first bool) error {
	switch w.format {
	case output.FormatJSON, output.FormatYAML:
		for _, c := range changes {
			if err := w.writeData(c); err != nil {
				return err
			}
		}
		return nil
	case output.FormatName:
		for _, c := range changes {
			if _, err := fmt.Fprintln(w.out, c.event, output.Sanitize(w.r.names(c.item.msg)[0])); err != nil {
				return err
			}
		}
		return nil
	}
	if len(changes) == 0 && !first {
		return nil
	}
	msgs := make([]T, len(changes))
	for i, c := range changes {
		msgs[i] = c.item.msg
	}
	t := w.r.columns(time.Now()).Table(msgs, w.format == output.FormatWide)
	t.Header = slices.Insert(t.Header, 0, "EVENT")
	for i, c := range changes {
		t.Rows[i] = slices.Insert(t.Rows[i], 0, string(c.event))
		t.Tones[i] = slices.Insert(t.Tones[i], 0, eventTones[c.event])
	}
	if w.widths == nil { // the events' own column is as wide as it will ever be
		w.widths = []int{len(modified)}
	}
	t.Widths = w.widths
	err := t.Write(w.out, first && w.headers)
	w.widths = t.Widths
	return err
}

// writeData writes a change as an object: JSON on one line, YAML as a document.
func (w *watchWriter[T]) writeData(c change[T]) error {
	data, err := json.Marshal(map[string]any{"event": c.event, "object": c.item.raw})
	if err != nil {
		return fmt.Errorf("encode the result: %w", err)
	}
	if w.format == output.FormatYAML {
		if _, err := io.WriteString(w.out, "---\n"); err != nil {
			return err
		}
		return output.WriteJSON(w.out, w.format, data)
	}
	return output.WriteLine(w.out, data)
}
