// Package tally counts connects by who makes them or by what they reach: the numbers of `ax top`.
//
// Invariant: it holds at most [MaxKeys] counts whatever it is given; what does not fit is counted together.
// Start reading at [Tally.Add].
package tally

import (
	"cmp"
	"slices"
	"time"

	nodeagentv1 "appswitch.io/proto/gen/appswitch/nodeagent/v1"
	routerv1 "appswitch.io/proto/gen/appswitch/router/v1"
)

// MaxKeys bounds the applications or services that are told apart; the others are counted as [Other].
const MaxKeys = 10_000

// Other is the key of what did not fit.
const Other = "(other)"

// Row is what one application made, or one service received, in an interval.
type Row struct {
	Key     string  `json:"key"`  // id of the application, or address of the service
	Name    string  `json:"name"` // of the application, if known
	Rate    float64 `json:"connectsPerSecond"`
	Allowed uint64  `json:"allowed"`
	Denied  uint64  `json:"denied"`
	Passed  uint64  `json:"passthrough"`
	Failed  uint64  `json:"failed"` // allowed or passed through, and refused by whoever is there
	Retried uint64  `json:"retried"`
}

func (r Row) connects() uint64 { return r.Allowed + r.Denied + r.Passed }

// Tally counts. It is not safe for concurrent use.
type Tally struct {
	by     func(*nodeagentv1.Flow) (key, name string)
	rows   map[string]*Row
	missed uint64
}

// New returns an empty tally of what by tells apart.
func New(by func(*nodeagentv1.Flow) (key, name string)) *Tally {
	return &Tally{by: by, rows: map[string]*Row{}}
}

// Add counts a flow, and those that were left out before it.
func (t *Tally) Add(m *nodeagentv1.WatchFlowsResponse) {
	t.missed += m.GetMissed()
	f := m.GetFlow()
	if f == nil {
		return
	}
	key, name := t.by(f)
	row := t.rows[key]
	if row == nil {
		if len(t.rows) >= MaxKeys {
			key, name = Other, ""
		}
		if row = t.rows[key]; row == nil {
			row = &Row{Key: key}
			t.rows[key] = row
		}
	}
	row.Name = cmp.Or(name, row.Name)
	switch f.GetVerdict() {
	case routerv1.Verdict_VERDICT_ALLOW:
		row.Allowed++
	case routerv1.Verdict_VERDICT_PASSTHROUGH:
		row.Passed++
	default:
		row.Denied++
	}
	// A connect that does not wait for its end has not failed.
	if f.GetVerdict() != routerv1.Verdict_VERDICT_DENY && f.GetErrno() != "" && f.GetErrno() != "EINPROGRESS" {
		row.Failed++
	}
	if f.GetRetries() > 0 {
		row.Retried++
	}
}

// Take returns the counts of an interval, the busiest first, with the number of flows that were missed, and starts over.
// No two rows are in an order that depends on chance.
func (t *Tally) Take(interval time.Duration) (rows []Row, missed uint64) {
	for _, r := range t.rows {
		r.Rate = float64(r.connects()) / max(interval, time.Millisecond).Seconds()
		rows = append(rows, *r)
	}
	slices.SortFunc(rows, func(a, b Row) int {
		return cmp.Or(cmp.Compare(b.connects(), a.connects()), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Key, b.Key))
	})
	missed = t.missed
	t.rows, t.missed = map[string]*Row{}, 0
	return rows, missed
}
