// Package feed keeps the resolver's zone current: it takes the service table as it is watched and publishes a zone for
// each of its revisions.
//
// Readers load the present zone without a lock, or wait for the next. Invariant: a published zone is never taken back;
// while the registry is away the last one stays, and before the first list there is none at all. Start reading at
// [Feed].
package feed

import (
	"log/slog"
	"net/netip"
	"sync/atomic"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/watch"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	"appswitch.io/services/resolver/internal/zone"
)

// Kinds are the records that names are made of.
func Kinds() []registryv1.Kind {
	return []registryv1.Kind{registryv1.Kind_KIND_ENDPOINT, registryv1.Kind_KIND_VIRTUAL_SERVICE, registryv1.Kind_KIND_ADDRESS_CLAIM}
}

// Feed is a watch.Handler that publishes zones.
type Feed struct {
	log     *slog.Logger
	builder *zone.Builder // owned by the goroutine that calls Replace and Apply
	now     atomic.Pointer[state]
}

// state is a zone and the news of the next one.
type state struct {
	zone *zone.Zone
	next chan struct{} // closed when there is a newer state
}

// New returns a feed without a zone. The origin is the domain as zone.ParseDomain returns it; self are the addresses
// of the resolver.
func New(origin string, self []netip.Addr, log *slog.Logger) *Feed {
	f := &Feed{log: log, builder: zone.NewBuilder(origin, self)}
	f.now.Store(&state{next: make(chan struct{})})
	return f
}

// Zone returns the present zone, nil before the first list.
func (f *Feed) Zone() *zone.Zone { return f.now.Load().zone }

// Next returns the present zone, nil before the first list, and a channel that is closed when there is a newer one.
func (f *Feed) Next() (*zone.Zone, <-chan struct{}) {
	s := f.now.Load()
	return s.zone, s.next
}

// Replace implements watch.Handler.
func (f *Feed) Replace(t *watch.Table) {
	f.builder.Retain(
		func(id ax.EndpointID) bool { _, ok := t.Endpoints[id]; return ok },
		func(name string) bool { _, ok := t.VirtualServices[name]; return ok },
		func(a netip.Addr) bool { _, ok := t.Claims[a]; return ok },
	)
	for _, e := range t.Endpoints {
		f.endpoint(e)
	}
	for _, v := range t.VirtualServices {
		f.virtualService(v)
	}
	for a := range t.Claims {
		f.builder.PutClaim(a)
	}
	f.publish(t.Revision)
}

// Apply implements watch.Handler.
func (f *Feed) Apply(e watch.Event) {
	for _, c := range e.Changes {
		f.change(c)
	}
	f.publish(e.Revision)
}

func (f *Feed) change(c watch.Change) {
	switch v := c.Value.(type) {
	case ax.Endpoint:
		f.endpoint(v)
	case ax.VirtualService:
		f.virtualService(v)
	case ax.Claim:
		f.builder.PutClaim(v.Addr)
	case nil:
		f.remove(c.Kind, c.Key)
	}
}

func (f *Feed) remove(kind registryv1.Kind, key string) {
	switch kind {
	case registryv1.Kind_KIND_ENDPOINT:
		f.builder.DeleteEndpoint(ax.EndpointID(key))
	case registryv1.Kind_KIND_VIRTUAL_SERVICE:
		f.builder.DeleteVirtualService(key)
	case registryv1.Kind_KIND_ADDRESS_CLAIM:
		if a, err := netip.ParseAddr(key); err == nil {
			f.builder.DeleteClaim(a)
		}
	}
}

func (f *Feed) endpoint(e ax.Endpoint) {
	if err := f.builder.PutEndpoint(e); err != nil {
		f.log.Warn("endpoint has no DNS name", "endpoint", string(e.ID), "error", err)
	}
}

func (f *Feed) virtualService(v ax.VirtualService) {
	if err := f.builder.PutVirtualService(v); err != nil {
		f.log.Warn("virtual service has no DNS name", "error", err)
	}
}

func (f *Feed) publish(r ax.Revision) {
	last := f.now.Load()
	f.now.Store(&state{zone: f.builder.Zone(r), next: make(chan struct{})})
	close(last.next)
}
