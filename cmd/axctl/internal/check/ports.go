package check

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Port is one that the daemon binds.
type Port struct {
	Number   uint16
	Use      string
	Node     bool   // on the node's address rather than loopback
	UDP      bool   // on UDP as well as on TCP
	Flag     string // that chooses another
	Optional bool   // the daemon works without
}

// DefaultPorts are those of a daemon without options.
func DefaultPorts() []Port {
	return []Port{
		{Number: 6662, Use: "etcd clients", Node: true, Flag: "--etcd-client-port", Optional: true},
		{Number: 6663, Use: "etcd peers", Node: true, Flag: "--etcd-peer-port", Optional: true},
		{Number: 6664, Use: "REST", Flag: "--rest-port"},
		{Number: 6665, Use: "gRPC", Flag: "--grpc-listen"},
		{Number: 6666, Use: "metrics", Flag: "--metrics-listen"},
		{Number: 7946, Use: "gossip", Node: true, UDP: true, Optional: true},
		{Number: 53, Use: "DNS", Node: true, UDP: true, Flag: "--dns-port", Optional: true},
	}
}

// daemons are the names of AppSwitch's own processes.
var daemons = []string{"ax", "axctl", "registryd", "routerd", "resolverd", "nodeagentd", "gatewayd"}

// port binds the port for a moment.
func (o Options) port(ctx context.Context, p Port) Result {
	addr := netip.MustParseAddr("127.0.0.1")
	if p.Node {
		addr = nodeAddress()
	}
	at := netip.AddrPortFrom(addr, p.Number)
	name := fmt.Sprintf("port %d", p.Number)
	bad := failed
	if p.Optional {
		bad = warning
	}
	fix := "stop what uses it"
	if p.Flag != "" {
		fix += ", or choose another with " + p.Flag
	}
	err := tryBind(ctx, at, p.UDP)
	switch {
	case err == nil:
		return ok(name, "%s: %s is free", p.Use, at)
	case errors.Is(err, unix.EADDRINUSE):
		holder := o.holder(p.Number)
		if slices.Contains(daemons, holder.comm) {
			return warning(name, "nothing, if it is meant to run", "%s: AppSwitch runs already (%s)", p.Use, holder)
		}
		return bad(name, fix, "%s: %s is in use%s", p.Use, at, holder.by())
	case errors.Is(err, unix.EACCES):
		return bad(name, "run as root, or choose a port from 1024 up", "%s: %s is reserved to root", p.Use, at)
	}
	return bad(name, fix, "%s: %v", p.Use, err)
}

func tryBind(ctx context.Context, at netip.AddrPort, udp bool) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", at.String())
	if err != nil {
		return err
	}
	_ = l.Close()
	if !udp {
		return nil
	}
	c, err := lc.ListenPacket(ctx, "udp", at.String())
	if err != nil {
		return err
	}
	_ = c.Close()
	return nil
}

// nodeAddress is the address that a daemon without --node-interface takes: the first IPv4 address that isn't loopback.
func nodeAddress() netip.Addr {
	addrs, err := net.InterfaceAddrs()
	if err == nil {
		for _, a := range addrs {
			if n, is := a.(*net.IPNet); is {
				if ip, valid := netip.AddrFromSlice(n.IP); valid && ip.Unmap().Is4() && !ip.IsLoopback() {
					return ip.Unmap()
				}
			}
		}
	}
	return netip.MustParseAddr("127.0.0.1")
}

// process is who has a port.
type process struct {
	pid  int
	comm string
}

func (p process) String() string { return fmt.Sprintf("%s, process %d", p.comm, p.pid) }

func (p process) by() string {
	if p.pid == 0 {
		return ""
	}
	return " by " + p.String()
}

// holder finds the process that listens on a port; none if it can't be seen.
func (o Options) holder(port uint16) process {
	inodes := map[string]bool{}
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6"} {
		for _, inode := range listeners(filepath.Join(o.Proc, "net", table), port) {
			inodes["socket:["+inode+"]"] = true
		}
	}
	pids, err := os.ReadDir(o.Proc)
	if err != nil || len(inodes) == 0 {
		return process{}
	}
	for _, e := range pids {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue // not a process
		}
		dir := filepath.Join(o.Proc, e.Name())
		fds, err := os.ReadDir(filepath.Join(dir, "fd"))
		if err != nil {
			continue // gone, or somebody else's
		}
		for _, fd := range fds {
			if link, err := os.Readlink(filepath.Join(dir, "fd", fd.Name())); err == nil && inodes[link] {
				comm, _ := os.ReadFile(filepath.Join(dir, "comm"))
				return process{pid: pid, comm: strings.TrimSpace(string(comm))}
			}
		}
	}
	return process{}
}

// listeners reads the inodes of the sockets that a table of /proc/net shows as bound to port without a peer.
func listeners(table string, port uint16) []string {
	f, err := os.Open(table)
	if err != nil {
		return nil
	}
	defer f.Close()
	const local, remote, inode = 1, 2, 9 // fields of a line
	var out []string
	suffix := fmt.Sprintf(":%04X", port)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) > inode && strings.HasSuffix(fields[local], suffix) && strings.HasSuffix(fields[remote], ":0000") {
			out = append(out, fields[inode])
		}
	}
	return out
}
