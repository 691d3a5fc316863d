package rpc

import (
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/balancer/base"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// turnsPolicy is gRPC's name of turns.
const turnsPolicy = "appswitch_turns"

// silentFor is how long a server that left a call without an answer is passed over: by then the keepalive has found out
// whether it is there.
const silentFor = keepaliveAfter + keepaliveWait + 2*time.Second

// turns makes calls go round the servers that are connected and healthy, as round_robin does, but passes over those that
// hang: they leave calls without an answer while their connections stay open. With round_robin every other call would
// wait for its deadline, until the keepalive notices.
type turns struct{}

func init() { balancer.Register(turns{}) } // gRPC takes no other way

// Name implements balancer.Builder.
func (turns) Name() string { return turnsPolicy }

// Build implements balancer.Builder.
func (turns) Build(cc balancer.ClientConn, o balancer.BuildOptions) balancer.Balancer {
	m := &silence{since: map[string]time.Time{}}
	return base.NewBalancerBuilder(turnsPolicy, m, base.Config{HealthCheck: true}).Build(cc, o)
}

// silence knows which servers of a client hang.
type silence struct {
	mu    sync.Mutex           // guards since
	since map[string]time.Time // by address
}

// Build implements base.PickerBuilder: there are other servers to choose from.
func (m *silence) Build(info base.PickerBuildInfo) balancer.Picker {
	if len(info.ReadySCs) == 0 {
		return base.NewErrPicker(balancer.ErrNoSubConnAvailable)
	}
	p := &picker{silence: m}
	for sc, i := range info.ReadySCs {
		p.servers = append(p.servers, server{sc, i.Address.Addr})
	}
	return p
}

// heard learns how a call of a server ended. One that the caller gave up before a byte had come is a sign of silence.
func (m *silence) heard(addr string, info balancer.DoneInfo) {
	m.mu.Lock()
	defer m.mu.Unlock()
	code := status.Code(info.Err)
	switch {
	case info.BytesReceived || info.Err == nil:
		delete(m.since, addr)
	case code == codes.DeadlineExceeded || code == codes.Canceled:
		m.since[addr] = time.Now()
	}
}

func (m *silence) hangs(addr string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	since, ok := m.since[addr]
	return ok && time.Since(since) < silentFor
}

// server is one that is connected and healthy.
type server struct {
	conn balancer.SubConn
	addr string
}

// picker chooses for each call.
type picker struct {
	silence *silence
	servers []server
	next    atomic.Uint32
}

// Pick implements balancer.Picker. If all servers hang, all take their turns.
func (p *picker) Pick(balancer.PickInfo) (balancer.PickResult, error) {
	n := uint32(len(p.servers))
	first := p.next.Add(1)
	chosen := p.servers[first%n]
	for i := range n {
		if s := p.servers[(first+i)%n]; !p.silence.hangs(s.addr) {
			chosen = s
			break
		}
	}
	return balancer.PickResult{SubConn: chosen.conn, Done: func(info balancer.DoneInfo) { p.silence.heard(chosen.addr, info) }}, nil
}
