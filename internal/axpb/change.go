package axpb

import (
	"errors"
	"fmt"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/trace"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
)

// MaxKeyLength bounds the key of a record within its kind, in bytes.
const MaxKeyLength = 512

// Record is an entry of the service table, read from a peer and found valid.
type Record struct {
	Kind  registryv1.Kind
	Key   string // key within the kind, as described at registryv1.Kind
	Value any    // ax.Node, ax.App, ax.Endpoint, ax.VirtualService, ax.Policy or ax.Claim
	Trace string // traceparent of the trace in which it was put; empty if there was none
}

// RecordFrom reads a record. Where the value does not validate but its kind and key are known, they are returned
// along with the error, so that the caller can treat the record as absent.
func RecordFrom(p *registryv1.Record) (Record, error) {
	r, err := RecordKeyOf(p)
	if err != nil {
		return r, err
	}
	r.Trace = trace.Checked(p.GetTraceParent())
	switch v := p.GetValue().(type) {
	case *registryv1.Record_Node:
		r.Value, err = NodeFrom(v.Node)
	case *registryv1.Record_App:
		r.Value, err = AppFrom(v.App)
	case *registryv1.Record_Endpoint:
		r.Value, err = EndpointFrom(v.Endpoint)
	case *registryv1.Record_VirtualService:
		r.Value, err = VirtualServiceFrom(v.VirtualService)
	case *registryv1.Record_Policy:
		r.Value, err = PolicyFrom(v.Policy)
	case *registryv1.Record_AddressClaim:
		r.Value, err = ClaimFrom(v.AddressClaim)
	}
	if err != nil {
		r.Value = nil
	}
	return r, err
}

// RecordKeyOf reads the kind and key of a record and leaves its value alone.
func RecordKeyOf(p *registryv1.Record) (Record, error) {
	var r Record
	switch v := p.GetValue().(type) {
	case *registryv1.Record_Node:
		r.Kind, r.Key = registryv1.Kind_KIND_NODE, v.Node.GetName()
	case *registryv1.Record_App:
		r.Kind, r.Key = registryv1.Kind_KIND_APP, v.App.GetId()
	case *registryv1.Record_Endpoint:
		r.Kind, r.Key = registryv1.Kind_KIND_ENDPOINT, v.Endpoint.GetId()
	case *registryv1.Record_VirtualService:
		r.Kind, r.Key = registryv1.Kind_KIND_VIRTUAL_SERVICE, v.VirtualService.GetName()
	case *registryv1.Record_Policy:
		r.Kind, r.Key = registryv1.Kind_KIND_POLICY, v.Policy.GetName()
	case *registryv1.Record_AddressClaim:
		addr, err := AddrFrom("address_claim.ip", v.AddressClaim.GetIp())
		if err != nil {
			return r, err
		}
		r.Kind, r.Key = registryv1.Kind_KIND_ADDRESS_CLAIM, addr.String()
	default:
		return r, errors.New("record.value: missing")
	}
	return r, checkKey("record", r.Key)
}

// RecordKeyFrom reads the name of a record; Value stays nil.
func RecordKeyFrom(p *registryv1.RecordKey) (Record, error) {
	r := Record{Kind: p.GetKind(), Key: p.GetKey()}
	if err := KindValid(r.Kind); err != nil {
		return r, err
	}
	if err := checkKey("record_key.key", r.Key); err != nil {
		return r, err
	}
	if r.Kind == registryv1.Kind_KIND_ADDRESS_CLAIM {
		addr, err := AddrFrom("record_key.key", r.Key)
		if err != nil {
			return r, err
		}
		r.Key = addr.String()
	}
	return r, nil
}

// KindValid reports whether k is a kind that this version knows.
func KindValid(k registryv1.Kind) error {
	if k < registryv1.Kind_KIND_NODE || k > registryv1.Kind_KIND_ADDRESS_CLAIM {
		return fmt.Errorf("kind: %s is not one", k)
	}
	return nil
}

// Put writes the change that creates or replaces a record. A value that is not one of those
// listed at Record gives a change without an operation, which the registry refuses.
func Put(value any) *registryv1.Change {
	r := &registryv1.Record{}
	switch v := value.(type) {
	case ax.Node:
		r.Value = &registryv1.Record_Node{Node: Node(v)}
	case ax.App:
		r.Value = &registryv1.Record_App{App: App(v)}
	case ax.Endpoint:
		r.Value = &registryv1.Record_Endpoint{Endpoint: Endpoint(v)}
	case ax.VirtualService:
		r.Value = &registryv1.Record_VirtualService{VirtualService: VirtualService(v)}
	case ax.Policy:
		r.Value = &registryv1.Record_Policy{Policy: Policy(v)}
	case ax.Claim:
		r.Value = &registryv1.Record_AddressClaim{AddressClaim: Claim(v)}
	default:
		return &registryv1.Change{}
	}
	return &registryv1.Change{Op: &registryv1.Change_Put{Put: r}}
}

// Delete writes the change that removes a record.
func Delete(kind registryv1.Kind, key string) *registryv1.Change {
	return &registryv1.Change{Op: &registryv1.Change_Delete{Delete: &registryv1.RecordKey{Kind: kind, Key: key}}}
}

func checkKey(field, key string) error {
	switch {
	case key == "":
		return fmt.Errorf("%s: key is missing", field)
	case len(key) > MaxKeyLength:
		return fmt.Errorf("%s: key of %d bytes, at most %d", field, len(key), MaxKeyLength)
	}
	return nil
}
