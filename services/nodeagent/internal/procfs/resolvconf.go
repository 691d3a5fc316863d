package procfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Limits of reading an application's resolv.conf.
const (
	MaxResolvConf  = 64 << 10 // bytes; the rest is ignored
	MaxNameservers = 8        // the rest is ignored
	MaxReads       = 8        // reads at once: an application's file system may let a read hang for ever
)

// ErrBusy says that MaxReads reads hang in the file systems of applications.
var ErrBusy = errors.New("too many reads of resolv.conf are hanging")

var reads = make(chan struct{}, MaxReads)

// Nameservers returns the name servers of the resolv.conf that a process sees, in its order and unmapped; none if the
// file names none, for which resolver libraries take the loopback address. It returns when ctx ends, even if the file
// system of the process doesn't answer.
func Nameservers(ctx context.Context, pid int) ([]netip.Addr, error) {
	b, err := bounded(ctx, func() ([]byte, error) { return readResolvConf(pid) })
	if err != nil {
		return nil, fmt.Errorf("name servers of process %d: %w", pid, err)
	}
	return parseResolvConf(b), nil
}

// bounded runs read, and leaves it behind if ctx ends first.
func bounded(ctx context.Context, read func() ([]byte, error)) ([]byte, error) {
	select {
	case reads <- struct{}{}:
	default:
		return nil, ErrBusy
	}
	type result struct {
		content []byte
		err     error
	}
	ch := make(chan result, 1)
	go func() {
		defer func() { <-reads }()
		b, err := read()
		ch <- result{b, err}
	}()
	select {
	case r := <-ch:
		return r.content, r.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func readResolvConf(pid int) ([]byte, error) {
	root, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open its root: %w", err)
	}
	defer unix.Close(root)
	// Symbolic links are followed within the root; magic ones, which could lead out of it, are not.
	fd, err := unix.Openat2(root, "etc/resolv.conf", &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, fmt.Errorf("open its /etc/resolv.conf: %w", err)
	}
	defer unix.Close(fd)
	return readRegular(fd)
}

// readRegular reads the file of an O_PATH descriptor, unless to open it could have an effect.
func readRegular(path int) ([]byte, error) {
	var st unix.Stat_t
	if err := unix.Fstat(path, &st); err != nil {
		return nil, fmt.Errorf("stat its /etc/resolv.conf: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, errors.New("its /etc/resolv.conf is not a regular file")
	}
	f, err := os.OpenFile("/proc/self/fd/"+strconv.Itoa(path), os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, fmt.Errorf("open its /etc/resolv.conf: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, MaxResolvConf))
	if err != nil {
		return nil, fmt.Errorf("read its /etc/resolv.conf: %w", err)
	}
	return b, nil
}

// parseResolvConf reads resolv.conf(5).
func parseResolvConf(b []byte) []netip.Addr {
	var servers []netip.Addr
	for line := range bytes.Lines(b[:min(len(b), MaxResolvConf)]) {
		fields := strings.Fields(string(line))
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		a, err := netip.ParseAddr(fields[1])
		if err != nil {
			continue
		}
		if servers = append(servers, a.Unmap().WithZone("")); len(servers) == MaxNameservers {
			break
		}
	}
	return servers
}
