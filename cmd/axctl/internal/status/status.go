// Package status asks every service of a node how it is.
//
// It speaks to each service itself, over gRPC, with a call that does real work: one that is down hides no other, and
// the gateway is asked over REST, which is what its users see. Invariant: it answers within [Timeout], and nothing is
// reported as well that did not answer. Start reading at [Get].
package status

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"appswitch.io/internal/rpc"
	"appswitch.io/internal/service"
	nodeagentv1 "appswitch.io/proto/gen/appswitch/nodeagent/v1"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	resolverv1 "appswitch.io/proto/gen/appswitch/resolver/v1"
	routerv1 "appswitch.io/proto/gen/appswitch/router/v1"
	typev1 "appswitch.io/proto/gen/appswitch/type/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
)

const (
	// Timeout bounds the answer of each service.
	Timeout = 3 * time.Second
	// MaxSnapshotAge is how long ago the router may have confirmed the node's routes: it does so every few seconds.
	MaxSnapshotAge = 30 * time.Second
	// DaemonAddr is where `ax daemon` serves all services.
	DaemonAddr = "127.0.0.1:6665"
)

// Service is the state of one service.
type Service struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"` // what it said, or what is wrong and what to do about it
}

// Report is the state of a node.
type Report struct {
	Services []Service
	Agent    *nodeagentv1.GetStatusResponse // nil if the node agent did not answer
	Problems []string                       // what is wrong with the node though its services answer
}

// Healthy reports whether nothing is wrong.
func (r Report) Healthy() bool {
	for _, s := range r.Services {
		if !s.OK {
			return false
		}
	}
	return len(r.Problems) == 0
}

// Options say where the services are.
type Options struct {
	Addrs   map[service.Peer]string // gRPC addresses; for those not given: DaemonAddr, then the service's own default
	Host    string                  // where the services are that have no address; empty: here
	TLS     rpc.TLS
	Gateway func(context.Context) (string, error) // asks the gateway over REST
}

// probe asks one service for something that needs it to work.
type probe struct {
	peer service.Peer
	ask  func(context.Context, grpc.ClientConnInterface) (string, error)
}

// Get asks all services at once.
func Get(ctx context.Context, o Options) Report {
	var r Report
	probes := []probe{
		{service.Registry, askRegistry}, {service.Router, askRouter}, {service.Resolver, askResolver},
		{service.NodeAgent, func(ctx context.Context, c grpc.ClientConnInterface) (detail string, err error) {
			r.Agent, detail, err = askAgent(ctx, c)
			return detail, err
		}},
	}
	r.Services = make([]Service, len(probes)+1)
	var wg sync.WaitGroup
	for i, p := range probes {
		wg.Go(func() {
			detail, err := p.run(ctx, o)
			r.Services[i] = outcome(string(p.peer), detail, err)
		})
	}
	wg.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, Timeout)
		defer cancel()
		detail, err := o.Gateway(ctx)
		r.Services[len(probes)] = outcome(string(service.Gateway), detail, err)
	})
	wg.Wait()
	if r.Agent != nil {
		r.Problems = problems(r.Agent)
	}
	return r
}

func outcome(name, detail string, err error) Service {
	if err != nil {
		return Service{Name: name, Detail: err.Error()}
	}
	return Service{Name: name, OK: true, Detail: detail}
}

// run tries the addresses at which the service may be, until one has it.
func (p probe) run(ctx context.Context, o Options) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	addrs := []string{at(o.Host, DaemonAddr), at(o.Host, p.peer.Addr())}
	if a := o.Addrs[p.peer]; a != "" {
		addrs = []string{a}
	} else if addrs[0] == addrs[1] {
		addrs = addrs[:1]
	}
	var worst error
	for _, a := range addrs {
		detail, err := p.try(ctx, a, o.TLS)
		if err == nil {
			return detail, nil
		}
		if worst == nil || presence(err) > presence(worst) {
			worst = err
		}
	}
	where, message := strings.Join(addrs, " or "), grpcstatus.Convert(worst).Message()
	switch {
	case presence(worst) < here && o.Addrs[p.peer] != "":
		return "", fmt.Errorf("not at %s, which --%s-addr names", where, p.peer)
	case presence(worst) < here:
		return "", fmt.Errorf("not running at %s: start it with `sudo ax daemon`", where)
	case grpcstatus.Code(worst) == codes.DeadlineExceeded:
		return "", fmt.Errorf("no answer from %s within %s", where, Timeout)
	case !o.TLS.Enabled && strings.Contains(message, "server preface"):
		// What gRPC's client says of a server that hangs up on it, as one with TLS does.
		return "", fmt.Errorf("%s hangs up, as a daemon with --tls does: give --tls with --tls-ca-cert, --tls-cert and --tls-key, or AX_TLS=true and AX_TLS_CA_CERT and so on", where)
	}
	return "", errors.New(message)
}

// at moves an address of loopback to another host.
func at(host, addr string) string {
	_, port, err := net.SplitHostPort(addr)
	if host == "" || err != nil {
		return addr
	}
	return net.JoinHostPort(host, port)
}

// How much an error says about whether the service is at an address.
const (
	nobody   = iota // nothing listens
	somebody        // another service
	here            // the service itself
)

func presence(err error) int {
	switch {
	case strings.Contains(grpcstatus.Convert(err).Message(), syscall.ECONNREFUSED.Error()):
		return nobody
	case grpcstatus.Code(err) == codes.Unimplemented:
		return somebody
	}
	return here
}

func (p probe) try(ctx context.Context, addr string, tls rpc.TLS) (string, error) {
	conn, err := rpc.Dial(addr, rpc.ClientConfig{TLS: tls})
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return p.ask(ctx, conn)
}

func askRegistry(ctx context.Context, c grpc.ClientConnInterface) (string, error) {
	reply, err := registryv1.NewRegistryServiceClient(c).ListNodes(ctx, &registryv1.ListNodesRequest{})
	return fmt.Sprintf("revision %d, %s", reply.GetRevision(), count(len(reply.GetNodes()), "node")), err
}

// nowhere is a destination that no table has: the discard port of loopback.
var nowhere = &typev1.SocketAddress{Ip: "127.0.0.1", Port: 9}

func askRouter(ctx context.Context, c grpc.ClientConnInterface) (string, error) {
	reply, err := routerv1.NewRouterServiceClient(c).Route(ctx, &routerv1.RouteRequest{Protocol: typev1.Protocol_PROTOCOL_TCP, Destination: nowhere})
	return fmt.Sprintf("revision %d", reply.GetRevision()), err
}

// probeName is looked up to hear that it doesn't exist.
const probeName = "ax-status-probe"

func askResolver(ctx context.Context, c grpc.ClientConnInterface) (string, error) {
	reply, err := resolverv1.NewResolverServiceClient(c).Resolve(ctx, &resolverv1.ResolveRequest{Name: probeName})
	if grpcstatus.Code(err) == codes.NotFound {
		return "answers", nil
	}
	return fmt.Sprintf("revision %d", reply.GetRevision()), err
}

func askAgent(ctx context.Context, c grpc.ClientConnInterface) (*nodeagentv1.GetStatusResponse, string, error) {
	reply, err := nodeagentv1.NewNodeAgentServiceClient(c).GetStatus(ctx, &nodeagentv1.GetStatusRequest{})
	if err != nil {
		return nil, "", err
	}
	detail := count(int(reply.GetApps()), "application") + ", " + count(int(reply.GetSockets()), "socket")
	return reply, detail, nil
}

// problems lists what is wrong with a node whose agent answers.
func problems(a *nodeagentv1.GetStatusResponse) []string {
	var out []string
	if !a.GetRegistryConnected() {
		out = append(out, "the node has no lease: its services are not in the table, and those of before will leave it; is the registry up?")
	}
	switch age := a.GetSnapshotAge().AsDuration(); {
	case a.GetSnapshotRevision() == 0:
		out = append(out, "no routes have come yet: connections wait; is the router up?")
	case !a.GetRouterConnected():
		out = append(out, fmt.Sprintf("the routes are %s old: the router can't be reached", age.Round(time.Second)))
	case age > MaxSnapshotAge:
		out = append(out, fmt.Sprintf("the routes are %s old: the router does not confirm them", age.Round(time.Second)))
	}
	return out
}

// count writes "1 node", "2 nodes".
func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
