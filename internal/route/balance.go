package route

import (
	"math/bits"
	"math/rand/v2"
	"slices"

	"appswitch.io/internal/ax"
)

// balance chooses among the candidates that have not been tried: of first, and only if that has none, of last. It
// returns -1 if neither has.
func (d *Decider) balance(s *Snapshot, f ax.Flow, g *group, svc *service, first, last mask, tried []ax.EndpointID) int {
	if svc == nil {
		i := pickAny(without(first, g, tried), nil)
		if i < 0 {
			i = pickAny(without(last, g, tried), nil)
		}
		return i
	}
	var who client
	if svc.Balancer == ax.Maglev || svc.Affinity > 0 {
		who = s.client(f)
	}
	if svc.Affinity <= 0 {
		i := d.pick(first, svc, who, tried)
		if i < 0 {
			i = d.pick(last, svc, who, tried)
		}
		return i
	}
	key, now := affinityKey{svc.Key, who}, d.now()
	kept := svc.position(d.affinities.get(key, now))
	if kept >= 0 && slices.Contains(tried, svc.endpoints[kept].ID) {
		kept = -1
	}
	i := -1
	for _, candidates := range []mask{first, last} {
		if kept >= 0 && candidates.has(kept) {
			i = kept
		} else {
			i = d.pick(candidates, svc, who, tried)
		}
		if i >= 0 {
			d.affinities.put(key, svc.endpoints[i].ID, now, svc.Affinity)
			break
		}
	}
	return i
}

// position returns the place of an endpoint in its group, or -1.
func (g *group) position(id ax.EndpointID) int {
	if id == "" {
		return -1
	}
	i, found := slices.BinarySearchFunc(g.endpoints, id, func(e *ax.Endpoint, id ax.EndpointID) int {
		switch {
		case e.ID < id:
			return -1
		case e.ID > id:
			return 1
		}
		return 0
	})
	if !found {
		return -1
	}
	return i
}

// without removes the endpoints that were tried from the candidates, and returns them.
func without(candidates mask, g *group, tried []ax.EndpointID) mask {
	for _, id := range tried {
		if i := g.position(id); i >= 0 {
			candidates.clear(i)
		}
	}
	return candidates
}

// pick returns the balancer's choice among the candidates that have not been tried, or -1.
func (d *Decider) pick(candidates mask, svc *service, who client, tried []ax.EndpointID) int {
	if svc.Balancer == ax.RoundRobin && svc.weights == nil {
		return d.pickInTurn(candidates, svc, tried)
	}
	without(candidates, &svc.group, tried)
	switch candidates.count() {
	case 0:
		return -1
	case 1:
		return candidates.nth(0)
	}
	switch svc.Balancer {
	case ax.RoundRobin:
		return d.pickInWeightedTurn(candidates, svc)
	case ax.LeastConn:
		return d.pickLeast(candidates, svc)
	case ax.Maglev:
		return svc.maglev.pick(who.hash(), candidates)
	}
	return pickAny(candidates, svc.weights)
}

// pickAny chooses at random. Weights may be nil.
func pickAny(candidates mask, weights []uint32) int {
	if weights == nil {
		n := candidates.count()
		if n == 0 {
			return -1
		}
		return candidates.nth(int(rand.Uint64N(uint64(n))))
	}
	return candidates.atWeight(weights, rand.Uint64N(candidates.weight(weights)))
}

// pickInTurn takes a turn. A retry takes the turn of the next connect, so that those left share evenly what a dead
// endpoint refuses.
func (d *Decider) pickInTurn(candidates mask, svc *service, tried []ax.EndpointID) int {
	n := candidates.count()
	left := n
	for _, id := range tried {
		if i := svc.position(id); i >= 0 && candidates.has(i) {
			left--
		}
	}
	if left == 0 {
		return -1 // without a turn: those of last resort take it
	}
	start := 0
	if n > 1 {
		start = int(d.turns.next(svc.Key) % uint64(n))
	}
	for k := range n {
		i := candidates.nth((start + k) % n)
		if !slices.Contains(tried, svc.endpoints[i].ID) {
			return i
		}
	}
	return -1
}

// pickInWeightedTurn gives each candidate as many turns of a round as it weighs, spread over the round: a stride that
// has no factor in common with the length of the round visits each turn once, and one near the golden section of it
// keeps the turns of one endpoint apart.
func (d *Decider) pickInWeightedTurn(candidates mask, svc *service) int {
	round := candidates.weight(svc.weights)
	stride := round * 618 / 1000
	for gcd(stride, round) != 1 {
		stride++
	}
	turn := d.turns.next(svc.Key) % round
	return candidates.atWeight(svc.weights, turn*stride%round)
}

// pickLeast chooses the candidate that has the fewest connections for its weight if it is given one more; one of them
// at random if there are several.
func (d *Decider) pickLeast(candidates mask, svc *service) int {
	best, bestConns, bestWeight, equals := -1, uint64(0), uint64(1), uint64(0)
	for i := candidates.next(0); i >= 0; i = candidates.next(i + 1) {
		conns, weight := uint64(1), uint64(1)
		if d.load != nil {
			e := svc.endpoints[i]
			conns += uint64(max(0, d.load.Connections(e.Proto, e.Host)))
		}
		if svc.weights != nil {
			weight = uint64(svc.weights[i])
		}
		switch a, b := conns*bestWeight, bestConns*weight; {
		case best < 0 || a < b:
			best, bestConns, bestWeight, equals = i, conns, weight, 1
		case a == b:
			if equals++; rand.Uint64N(equals) == 0 {
				best, bestConns, bestWeight = i, conns, weight
			}
		}
	}
	return best
}

// lowestTerms divides weights by what they have in common; nil if they are all the same.
func lowestTerms(weights []uint16) []uint32 {
	common, same := uint64(0), true
	for _, w := range weights {
		common = gcd(uint64(max(w, 1)), common)
		same = same && w == weights[0]
	}
	if same {
		return nil
	}
	out := make([]uint32, len(weights))
	for i, w := range weights {
		out[i] = uint32(uint64(max(w, 1)) / common)
	}
	return out
}

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// next returns the first number of the set from i on, or -1.
func (m mask) next(i int) int {
	for word := i / 64; word < len(m); word++ {
		w := m[word]
		if word == i/64 {
			w &= ^uint64(0) << (i % 64)
		}
		if w != 0 {
			return word*64 + bits.TrailingZeros64(w)
		}
	}
	return -1
}

// weight returns the sum of the weights of the set.
func (m mask) weight(weights []uint32) uint64 {
	sum := uint64(0)
	for i := m.next(0); i >= 0; i = m.next(i + 1) {
		sum += uint64(weights[i])
	}
	return sum
}

// atWeight returns the number at which the sum of the weights exceeds w; -1 if it never does.
func (m mask) atWeight(weights []uint32, w uint64) int {
	for i := m.next(0); i >= 0; i = m.next(i + 1) {
		if w < uint64(weights[i]) {
			return i
		}
		w -= uint64(weights[i])
	}
	return -1
}
