package ax

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Protocol is a transport protocol.
type Protocol uint8

// The protocols that services speak.
const (
	TCP Protocol = 1
	UDP Protocol = 2
)

// String returns "tcp" or "udp".
func (p Protocol) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	}
	return "protocol(" + strconv.Itoa(int(p)) + ")"
}

// ParseProtocol reads "tcp" or "udp"; the empty string means TCP.
func ParseProtocol(s string) (Protocol, error) {
	switch strings.ToLower(s) {
	case "", "tcp":
		return TCP, nil
	case "udp":
		return UDP, nil
	}
	return 0, fmt.Errorf("protocol %q: want tcp or udp", s)
}

type (
	// AppID identifies a running application: 8 hexadecimal digits, unique in the cluster.
	AppID string
	// EndpointID identifies an endpoint in the cluster.
	EndpointID string
	// NodeName identifies a node in its cluster.
	NodeName string
	// Revision counts the transactions of the service table: the table's clock.
	Revision int64
)

// Node is one machine of the cluster, running a node agent.
type Node struct {
	Name          NodeName
	Cluster       string
	Addr          netip.Addr // where peers and host ports are reached
	Version       string
	Driver        string
	Start         time.Time
	ReservedPorts []uint16 // AppSwitch's own ports of that address, denied to applications
	Labels        Labels   // what the node is, for people and selectors; no part of any decision
	Draining      bool     // for people: its endpoints say it themselves
}

// App is a running application: one `ax run` and all its processes.
type App struct {
	ID      AppID
	Name    string // DNS name, or <uuid> with the angle brackets if it was given none
	Node    NodeName
	Cluster string
	Addr    netip.Addr // virtual address; the node's if none was asked for
	Driver  string
	Labels  Labels
	PID     int
	Command string
	Start   time.Time

	Check    HealthCheck // how its endpoints are checked
	Draining bool        // it, or its node, gets no new connections
}

// DNSName returns the name at which the application can be looked up; empty if it was given none.
func (a App) DNSName() string {
	if strings.HasPrefix(a.Name, "<") {
		return ""
	}
	return a.Name
}

// Endpoint is one reachable service: a listening socket of an application.
type Endpoint struct {
	ID      EndpointID
	App     AppID
	Node    NodeName
	Cluster string
	Proto   Protocol
	Service netip.AddrPort // virtual address, where managed clients connect
	Host    netip.AddrPort // real address of the socket on its node
	Labels  Labels
	Name    string // DNS name of the application, if any
	Stale   bool   // its node's lease has expired: a last resort

	Health   Health // as its node's checks find it
	Draining bool   // gets no new connections

	// External marks the address of a virtual service's backend outside AppSwitch: it has neither application, node nor
	// labels, Service and Host are the same, and no node ever writes it.
	External bool
}

// MakeEndpointID builds the id of an endpoint from what makes it unique.
func MakeEndpointID(app AppID, proto Protocol, service netip.AddrPort, hostPort uint16) EndpointID {
	return EndpointID(fmt.Sprintf("%s/%s/%s/%d", app, proto, service, hostPort))
}

// ExternalEndpoint returns the endpoint of a virtual service's backend outside AppSwitch.
func ExternalEndpoint(proto Protocol, a netip.AddrPort) *Endpoint {
	return &Endpoint{ID: EndpointID(fmt.Sprintf("external/%s/%s", proto, a)), Proto: proto, Service: a, Host: a, External: true}
}

// Validate reports what makes an endpoint unusable.
func (e Endpoint) Validate() error {
	switch {
	case e.ID == "":
		return errors.New("endpoint: id is missing")
	case e.App == "" && !e.External:
		return fmt.Errorf("endpoint %s: app id is missing", e.ID)
	case e.Node == "" && !e.External:
		return fmt.Errorf("endpoint %s: node is missing", e.ID)
	case e.Proto != TCP && e.Proto != UDP:
		return fmt.Errorf("endpoint %s: %s is unknown", e.ID, e.Proto)
	case !validServiceAddr(e.Service):
		return fmt.Errorf("endpoint %s: service address %s is unusable", e.ID, e.Service)
	case !validServiceAddr(e.Host):
		return fmt.Errorf("endpoint %s: host address %s is unusable", e.ID, e.Host)
	}
	return e.Labels.Validate()
}

func validServiceAddr(a netip.AddrPort) bool {
	ip := a.Addr()
	return ip.IsValid() && !ip.Is4In6() && !ip.IsUnspecified() && !ip.IsMulticast() && a.Port() != 0
}

// Claim keeps an address virtual: with no endpoint it is refused, it never falls through to the outside.
type Claim struct {
	Addr      netip.Addr
	Name      string    // name to which it was allocated; empty if claimed by number
	Allocated bool      // made up from the pool
	Expire    time.Time // zero while an application or virtual service holds it
}

// CompareAddrPort orders addresses as tables show them.
func CompareAddrPort(a, b netip.AddrPort) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Port(), b.Port()))
}
