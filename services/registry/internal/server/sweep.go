package server

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"appswitch.io/internal/ax"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	"appswitch.io/services/registry/internal/store"
)

// Timing of the sweep: a tenth of the time a claim has, within these.
const (
	minSweep = 500 * time.Millisecond
	maxSweep = 30 * time.Second
)

// holders are the kinds that keep an address claimed.
var holders = setOf(registryv1.Kind_KIND_APP, registryv1.Kind_KIND_ENDPOINT, registryv1.Kind_KIND_VIRTUAL_SERVICE)

// addressOf returns the virtual address that a record stands for; invalid if it stands for none.
func addressOf(value any) netip.Addr {
	switch v := value.(type) {
	case ax.App:
		return v.Addr
	case ax.Endpoint:
		return v.Service.Addr()
	case ax.VirtualService:
		return v.Addr
	case ax.Claim:
		return v.Addr
	}
	return netip.Addr{}
}

// sweep lets claims end that nothing has held for the time they have, until ctx ends. Every registry of a cluster does
// it; the conditions of the transactions keep them from treading on each other's feet.
func (s *Server) sweep(ctx context.Context) error {
	tick := time.NewTicker(min(max(s.cfg.ClaimTTL/10, minSweep), maxSweep))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for _, a := range plan(s.claims(), time.Now(), s.cfg.ClaimTTL) {
			if err := s.carryOut(ctx, a); err != nil && !errors.Is(err, store.ErrConflict) {
				if ctx.Err() == nil {
					s.cfg.Log.Debug("sweep of address claims put off", "error", err)
				}
				break
			}
		}
	}
}

// standing is how one address stands.
type standing struct {
	claim    ax.Claim
	revision ax.Revision // of the claim; 0: there is none
	held     bool
	virtual  bool   // what holds it is not merely at its node's own address
	name     string // of a virtual service that holds it
}

// claims looks at every address that is claimed or held.
func (s *Server) claims() map[netip.Addr]standing {
	nodes := map[ax.NodeName]netip.Addr{}
	s.table.each(setOf(registryv1.Kind_KIND_NODE), func(value any, _ ax.Revision) {
		if n, ok := value.(ax.Node); ok {
			nodes[n.Name] = n.Addr
		}
	})
	elsewhere := func(node ax.NodeName, addr netip.Addr) bool {
		own, known := nodes[node]
		return known && own != addr
	}
	out := map[netip.Addr]standing{}
	s.table.each(holders|setOf(registryv1.Kind_KIND_ADDRESS_CLAIM), func(value any, revision ax.Revision) {
		addr := addressOf(value)
		st := out[addr]
		switch v := value.(type) {
		case ax.Claim:
			st.claim, st.revision = v, revision
		case ax.App:
			st.held, st.virtual = true, st.virtual || elsewhere(v.Node, addr)
		case ax.Endpoint:
			st.held, st.virtual = true, st.virtual || elsewhere(v.Node, addr)
		case ax.VirtualService:
			st.held, st.virtual, st.name = true, true, v.Name
		}
		out[addr] = st
	})
	for _, addr := range nodes { // whatever holds it, it is a machine's
		if st := out[addr]; st.revision == 0 {
			delete(out, addr)
		}
	}
	return out
}

// action is a change of one claim.
type action struct {
	claim    ax.Claim // as it is to be
	revision ax.Revision
	end      bool
}

// plan says what is to be done: a claim that nothing holds gets an end, one that has come to it goes, one that is held
// again has none, and what is held without a claim gets one.
func plan(all map[netip.Addr]standing, now time.Time, ttl time.Duration) []action {
	var out []action
	for addr, st := range all {
		c := st.claim
		switch {
		case st.revision == 0:
			if st.virtual && checkVirtual("", addr) == nil {
				out = append(out, action{claim: ax.Claim{Addr: addr, Name: st.name}})
			}
		case st.held && !c.Expire.IsZero():
			c.Expire = time.Time{}
			out = append(out, action{claim: c, revision: st.revision})
		case !st.held && c.Expire.IsZero():
			c.Expire = now.Add(ttl)
			out = append(out, action{claim: c, revision: st.revision})
		case !st.held && !now.Before(c.Expire):
			out = append(out, action{claim: c, revision: st.revision, end: true})
		}
	}
	return out
}

func (s *Server) carryOut(ctx context.Context, a action) error {
	key := claimKey(a.claim.Addr)
	txn := store.Txn{If: []store.Condition{{Key: key, Revision: a.revision}}}
	if a.end {
		txn = store.Txn{}
		if err := s.addRelease(ctx, &txn, a.claim.Addr); err != nil {
			return err
		}
		if len(txn.If) == 0 || txn.If[0].Revision != a.revision {
			return store.ErrConflict // it has changed since: the next sweep looks again
		}
		s.metrics.claimsFreed.Inc()
	} else {
		value, err := encode(a.claim)
		if err != nil {
			return err
		}
		txn.Ops = []store.Op{{Key: key, Value: value}}
	}
	_, err := s.cfg.Store.Write(ctx, txn)
	return err
}
