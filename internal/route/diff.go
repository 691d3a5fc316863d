package route

import (
	"cmp"
	"net/netip"
	"slices"

	"appswitch.io/internal/ax"
)

// Full returns the delta that leads from nothing to the snapshot, sorted.
func (s *Snapshot) Full() Delta {
	d := Diff(empty, s)
	d.Full = true
	return d
}

// Diff returns the delta that leads from one snapshot to another, sorted. It looks only at what the two don't share,
// so between a snapshot and its successors its cost is that of the changes, however many there were in between.
func Diff(from, to *Snapshot) Delta {
	d := Delta{Revision: to.revision}
	to.services.changed(&from.services, func(k ServiceKey, was *service, _ bool, is *service, there bool) {
		switch {
		case !there:
			d.Removes = append(d.Removes, k)
		case was != is:
			d.Upserts = append(d.Upserts, is.Service)
		}
	})
	to.addrs.changed(&from.addrs, func(a netip.Addr, was address, _ bool, is address, _ bool) {
		switch {
		case is.claimed && !was.claimed:
			d.Claims = append(d.Claims, a)
		case was.claimed && !is.claimed:
			d.ReleasedClaims = append(d.ReleasedClaims, a)
		}
	})
	to.nodes.changed(&from.nodes, func(name ax.NodeName, was *ax.Node, _ bool, is *ax.Node, there bool) {
		switch {
		case !there:
			d.RemovedNodes = append(d.RemovedNodes, name)
		case was != is:
			d.Nodes = append(d.Nodes, *is)
		}
	})
	d.Policies, d.RemovedPolicies = diffPolicies(from.policies.all(), to.policies.all())
	d.sort()
	return d
}

func diffPolicies(from, to []*policy) (upserts []ax.Policy, removes []string) {
	was := make(map[string]*policy, len(from))
	for _, p := range from {
		was[p.Name] = p
	}
	for _, p := range to {
		if was[p.Name] != p {
			upserts = append(upserts, p.Policy)
		}
		delete(was, p.Name)
	}
	for name := range was {
		removes = append(removes, name)
	}
	return upserts, removes
}

func (d *Delta) sort() {
	slices.SortFunc(d.Upserts, func(a, b Service) int { return a.Key.Compare(b.Key) })
	slices.SortFunc(d.Removes, ServiceKey.Compare)
	slices.SortFunc(d.Claims, netip.Addr.Compare)
	slices.SortFunc(d.ReleasedClaims, netip.Addr.Compare)
	slices.SortFunc(d.Nodes, func(a, b ax.Node) int { return cmp.Compare(a.Name, b.Name) })
	slices.Sort(d.RemovedNodes)
	slices.SortFunc(d.Policies, func(a, b ax.Policy) int { return cmp.Compare(a.Name, b.Name) })
	slices.Sort(d.RemovedPolicies)
}
