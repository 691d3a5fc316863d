package server

import (
	"fmt"
	"strconv"
	"strings"

	"appswitch.io/internal/axpb"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	"appswitch.io/services/registry/internal/store"
	"google.golang.org/protobuf/proto"
)

// The keys of the store: "<directory>/<key of the record>" holds a registryv1.Record. Two directories are the
// registry's own: names/<dns name> holds the address that belongs to a name, and superseded/<lease>, under that lease,
// marks a lease whose node has taken another.
const (
	namesDir      = "names/"
	supersededDir = "superseded/"
)

var directories = map[registryv1.Kind]string{
	registryv1.Kind_KIND_NODE:            "nodes/",
	registryv1.Kind_KIND_APP:             "apps/",
	registryv1.Kind_KIND_ENDPOINT:        "endpoints/",
	registryv1.Kind_KIND_VIRTUAL_SERVICE: "vservices/",
	registryv1.Kind_KIND_POLICY:          "policies/",
	registryv1.Kind_KIND_ADDRESS_CLAIM:   "claims/",
}

// recordID names a record in the table.
type recordID struct {
	kind registryv1.Kind
	key  string
}

func (id recordID) storeKey() string { return directories[id.kind] + id.key }

// parseKey is the reverse of storeKey; false for the registry's own keys and for foreign ones.
func parseKey(key string) (recordID, bool) {
	dir, rest, ok := strings.Cut(key, "/")
	if !ok || rest == "" {
		return recordID{}, false
	}
	for kind, d := range directories {
		if d == dir+"/" {
			return recordID{kind, rest}, true
		}
	}
	return recordID{}, false
}

func nameKey(name string) string { return namesDir + strings.ToLower(name) }

func supersededKey(lease store.LeaseID) string {
	return supersededDir + strconv.FormatInt(int64(lease), 16)
}

// parseSuperseded is the reverse of supersededKey.
func parseSuperseded(key string) (store.LeaseID, bool) {
	text, ok := strings.CutPrefix(key, supersededDir)
	if !ok {
		return 0, false
	}
	id, err := strconv.ParseInt(text, 16, 64)
	return store.LeaseID(id), err == nil && id != 0 && supersededKey(store.LeaseID(id)) == key
}

// encode writes a record as it is stored: without its revision, which is the store's to know.
func encode(value any) ([]byte, error) { return encodeTraced(value, "") }

// encodeTraced writes a record with the trace in which it is put: watchers continue it.
func encodeTraced(value any, traceParent string) ([]byte, error) {
	record := axpb.Put(value).GetPut()
	if record.GetValue() == nil {
		return nil, fmt.Errorf("%T is not a record", value)
	}
	record.TraceParent = traceParent
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(record)
	if err != nil {
		return nil, fmt.Errorf("encode record: %w", err)
	}
	return b, nil
}

// decode reads an entry of the store and makes sure that it is what its key says.
func decode(kv store.KV) (axpb.Record, *registryv1.Record, error) {
	id, ok := parseKey(kv.Key)
	if !ok {
		return axpb.Record{}, nil, fmt.Errorf("key %q is not that of a record", kv.Key)
	}
	p := &registryv1.Record{}
	if err := proto.Unmarshal(kv.Value, p); err != nil {
		return axpb.Record{}, nil, fmt.Errorf("record %q: %w", kv.Key, err)
	}
	p.Revision = int64(kv.Revision)
	r, err := axpb.RecordFrom(p)
	if err != nil {
		return axpb.Record{}, nil, fmt.Errorf("record %q: %w", kv.Key, err)
	}
	if r.Kind != id.kind || r.Key != id.key {
		return axpb.Record{}, nil, fmt.Errorf("record %q says that it is %s %q", kv.Key, r.Kind, r.Key)
	}
	return r, p, nil
}
