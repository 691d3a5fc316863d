package server

import (
	"testing"

	"appswitch.io/internal/axpb"
	"appswitch.io/services/registry/internal/store"
)

func FuzzParseKey(f *testing.F) {
	for _, key := range []string{"apps/a", "endpoints/a/tcp/1.1.1.1:80/1", "names/web", "superseded/1f", "superseded/-1", "/", "", "apps/"} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		id, ok := parseKey(key)
		if ok && (id.storeKey() != key || id.key == "") {
			t.Errorf("key %q read as %v, which is %q", key, id, id.storeKey())
		}
		lease, marked := parseSuperseded(key)
		if marked && (ok || lease == 0 || supersededKey(lease) != key) {
			t.Errorf("key %q is both a record and the mark of lease %d", key, lease)
		}
	})
}

func FuzzDecode(f *testing.F) {
	for _, v := range []any{node("n", "10.0.0.1"), app("a", "n", "1.1.1.1"), endpoint("a", "n", "1.1.1.1:80", "10.0.0.1:1")} {
		b, err := encode(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add("apps/a", b)
		f.Add("nodes/n", b)
	}
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		r, p, err := decode(store.KV{Key: key, Value: value, Revision: 7})
		if err != nil {
			if p != nil || r.Value != nil {
				t.Fatalf("a record along with error %v", err)
			}
			return
		}
		if (recordID{r.Kind, r.Key}).storeKey() != key || p.GetRevision() != 7 {
			t.Fatalf("%q read as %s %q at %d", key, r.Kind, r.Key, p.GetRevision())
		}
		again, err := encode(r.Value)
		if err != nil {
			t.Fatalf("can't write what was read: %v", err)
		}
		if r2, _, err := decode(store.KV{Key: key, Value: again, Revision: 7}); err != nil || axpb.Put(r2.Value).String() == "" {
			t.Fatalf("can't read what was written: %v", err)
		}
	})
}
