package server

import (
	"errors"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/axpb"
	"appswitch.io/internal/rpc"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
)

// Watch implements RegistryService. The stream sends at the pace of its watcher; meanwhile changes wait in the
// subscriber's queue, and when that is full the table cuts it off.
func (s *Server) Watch(req *registryv1.WatchRequest, stream grpc.ServerStreamingServer[registryv1.WatchResponse]) error {
	kinds, err := kindsOf(req.GetKinds())
	if err != nil {
		return err
	}
	if !s.table.await(stream.Context(), req.GetTableId(), ax.Revision(req.GetRevision())) {
		return rpc.Errorf(codes.Unavailable, "the service table has not been read from etcd yet").WithFix("the call may be repeated")
	}
	sub, start, err := s.table.subscribe(req.GetTableId(), ax.Revision(req.GetRevision()))
	if err != nil {
		return rpc.Errorf(codes.ResourceExhausted, "%w: at most %d", err, MaxWatchers)
	}
	defer s.table.unsubscribe(sub)
	s.metrics.watchers.Inc()
	defer s.metrics.watchers.Dec()
	w := &watching{kinds: kinds, tableID: start.tableID, revision: start.revision, send: stream.Send}
	if start.full {
		s.metrics.lists.Inc()
		err = w.sendList(start.list)
	} else {
		s.metrics.resumes.Inc()
		w.revision = ax.Revision(req.GetRevision())
		err = w.sendResume(start)
	}
	if err != nil {
		return err
	}
	return w.follow(stream, sub)
}

func kindsOf(in []registryv1.Kind) (kindSet, error) {
	if len(in) == 0 {
		var all kindSet
		for k := range directories {
			all |= setOf(k)
		}
		return all, nil
	}
	for _, k := range in {
		if err := axpb.KindValid(k); err != nil {
			return 0, rpc.Invalid(err).On("kinds")
		}
	}
	return setOf(in...), nil
}

// watching is the sending side of one watch.
type watching struct {
	kinds    kindSet
	tableID  string
	revision ax.Revision // of the table as the watcher knows it
	send     func(*registryv1.WatchResponse) error
}

// follow sends what the queue brings until the watcher leaves or is cut off.
func (w *watching) follow(stream grpc.ServerStreamingServer[registryv1.WatchResponse], sub *subscriber) error {
	heartbeat := time.NewTimer(Heartbeat)
	defer heartbeat.Stop()
	for {
		select { // before anything that waits in the queue
		case <-sub.cut:
			return cutError(sub)
		default:
		}
		select {
		case <-stream.Context().Done():
			return stream.Context().Err()
		case <-sub.cut:
			return cutError(sub)
		case b := <-sub.queue:
			if err := w.sendBatch(b); err != nil {
				return err
			}
		case <-heartbeat.C:
			if err := w.sendPart(w.revision, nil); err != nil {
				return err
			}
		}
		heartbeat.Reset(Heartbeat)
	}
}

func cutError(sub *subscriber) error {
	code := codes.ResourceExhausted
	if errors.Is(sub.why, errNewTable) {
		code = codes.Unavailable
	}
	return rpc.Errorf(code, "%w", sub.why)
}

// sendList sends the whole table in parts.
func (w *watching) sendList(all []*registryv1.Change) error {
	list := make([]*registryv1.Change, 0, len(all))
	for _, c := range all {
		if r, err := axpb.RecordKeyOf(c.GetPut()); err == nil && w.kinds.has(r.Kind) {
			list = append(list, c)
		}
	}
	for first := true; first || len(list) > 0; first = false {
		n := part(list)
		err := w.send(&registryv1.WatchResponse{
			TableId: w.tableID, Revision: int64(w.revision), List: true, Complete: n == len(list), Changes: list[:n],
		})
		if err != nil {
			return err
		}
		list = list[n:]
	}
	return nil
}

// sendResume sends what the watcher has missed, and lets it know how far the table is even if that was nothing.
func (w *watching) sendResume(st start) error {
	for _, b := range st.resume {
		if err := w.sendBatch(b); err != nil {
			return err
		}
	}
	return w.sendPart(st.revision, nil)
}

// sendBatch sends the changes of one revision. Where they take several messages, all but the last still carry the
// revision before: a watcher that loses the stream between them is sent all of them again.
func (w *watching) sendBatch(b *batch) error {
	changes := w.wanted(b)
	for len(changes) > 0 {
		n := part(changes)
		revision := w.revision
		if n == len(changes) {
			revision = b.revision
		}
		if err := w.sendPart(revision, changes[:n]); err != nil {
			return err
		}
		changes = changes[n:]
	}
	w.revision = b.revision
	return nil
}

func (w *watching) sendPart(revision ax.Revision, changes []*registryv1.Change) error {
	w.revision = revision
	return w.send(&registryv1.WatchResponse{TableId: w.tableID, Revision: int64(revision), Complete: true, Changes: changes})
}

// wanted picks the changes of the kinds that are watched.
func (w *watching) wanted(b *batch) []*registryv1.Change {
	if b.kinds&^w.kinds == 0 {
		return b.changes
	}
	var out []*registryv1.Change
	if b.kinds&w.kinds == 0 {
		return out
	}
	for i, c := range b.changes {
		if w.kinds.has(b.ids[i].kind) {
			out = append(out, c)
		}
	}
	return out
}

// part returns how many of the changes fit a message; at least one, if there is one.
func part(changes []*registryv1.Change) int {
	size := 0
	for i, c := range changes {
		if size += proto.Size(c); i == BatchChanges || i > 0 && size > BatchBytes {
			return i
		}
	}
	return len(changes)
}
