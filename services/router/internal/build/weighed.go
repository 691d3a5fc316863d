package build

import (
	"maps"
	"slices"

	"appswitch.io/internal/ax"
)

// weighed are the endpoints of one service with their weights.
type weighed map[ax.EndpointID]struct {
	endpoint *ax.Endpoint
	weight   uint16
}

// add adds an endpoint. One that several backends lead to has the greatest of their weights.
func (w weighed) add(e *ax.Endpoint, weight uint16) {
	entry := w[e.ID]
	entry.endpoint, entry.weight = e, max(entry.weight, weight)
	w[e.ID] = entry
}

// list returns the endpoints by id, and their weights unless they are all the same.
func (w weighed) list() ([]*ax.Endpoint, []uint16) {
	var (
		endpoints []*ax.Endpoint
		weights   []uint16
		same      = true
	)
	for _, id := range slices.Sorted(maps.Keys(w)) {
		endpoints, weights = append(endpoints, w[id].endpoint), append(weights, w[id].weight)
		same = same && w[id].weight == weights[0]
	}
	if same {
		weights = nil
	}
	return endpoints, weights
}
