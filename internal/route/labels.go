package route

import (
	"maps"
	"net/netip"
	"slices"

	"appswitch.io/internal/ax"
)

// label is one pair of a label set, kept in a slice because iterating over a map is several times slower.
type label struct{ key, value string }

func labelsOf(l ax.Labels) []label {
	out := make([]label, 0, len(l))
	for _, key := range slices.Sorted(maps.Keys(l)) {
		out = append(out, label{key, l[key]})
	}
	return out
}

// shared reports whether one of the pairs is in l: [ax.Labels.Shares] for a server known in advance.
func shared(pairs []label, l ax.Labels) bool {
	for i := range pairs {
		if v, ok := l[pairs[i].key]; ok && v == pairs[i].value {
			return true
		}
	}
	return false
}

// contained reports whether all of the pairs are in l.
func contained(pairs []label, l ax.Labels) bool {
	for i := range pairs {
		if v, ok := l[pairs[i].key]; !ok || v != pairs[i].value {
			return false
		}
	}
	return true
}

// maxClasses bounds the search for an equal class; a group with more kinds of endpoints gets a class for each.
const maxClasses = 64

// class is what policy sees of an endpoint: endpoints of one class are judged alike.
type class struct {
	labels []label
	set    ax.Labels // the same, as a set
	port   uint16    // the service's own port, whatever address leads to it
	// External endpoints carry no labels: whoever no policy refuses may reach them. Policies see their address.
	external bool
	addr     netip.Addr // of an external one
}

// group is a set of endpoints from which one is chosen.
type group struct {
	endpoints []*ax.Endpoint // sorted by id, no id twice
	classOf   []uint32       // index into classes, by endpoint
	classes   []class
}

func newGroup(endpoints []*ax.Endpoint) group {
	g := group{endpoints: endpoints, classOf: make([]uint32, len(endpoints))}
	for i, e := range endpoints {
		g.classOf[i] = g.class(e)
	}
	return g
}

func (g *group) class(e *ax.Endpoint) uint32 {
	if len(g.classes) < maxClasses {
		for i := range g.classes {
			c := &g.classes[i]
			if c.port == e.Service.Port() && c.external == e.External && (!e.External || c.addr == plain(e.Host.Addr())) && len(c.labels) == len(e.Labels) && contained(c.labels, e.Labels) {
				return uint32(i)
			}
		}
	}
	c := class{labels: labelsOf(e.Labels), set: e.Labels, port: e.Service.Port(), external: e.External}
	if e.External {
		c.addr = plain(e.Host.Addr())
	}
	g.classes = append(g.classes, c)
	return uint32(len(g.classes) - 1)
}
