package sysdump

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Machine describes the kernel, the distribution, and what the machine has.
func Machine(context.Context) ([]byte, error) {
	var b bytes.Buffer
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return nil, fmt.Errorf("uname: %w", err)
	}
	text := func(field []byte) string { return unix.ByteSliceToString(field) }
	fmt.Fprintf(&b, "kernel: %s %s %s %s\nprocessors: %d\nuid: %d\n", text(u.Sysname[:]), text(u.Release[:]), text(u.Version[:]), text(u.Machine[:]), runtime.NumCPU(), os.Geteuid())
	for _, file := range []string{"/etc/os-release", "/proc/meminfo", "/proc/loadavg", "/proc/sys/kernel/yama/ptrace_scope", "/proc/sys/net/ipv4/ip_local_port_range", "/proc/self/status", "/proc/self/cgroup"} {
		data, err := os.ReadFile(file)
		if err != nil {
			data = []byte(err.Error() + "\n")
		}
		fmt.Fprintf(&b, "\n== %s\n%s", file, data)
	}
	for _, ns := range []string{"net", "mnt", "pid", "user", "cgroup"} {
		link, err := os.Readlink("/proc/self/ns/" + ns)
		if err != nil {
			link = err.Error()
		}
		fmt.Fprintf(&b, "\n== namespace %s: %s", ns, link)
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}

// Fetch returns a function that gets a page of a debug port.
func Fetch(url string) func(context.Context) ([]byte, error) {
	return func(ctx context.Context) ([]byte, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return nil, err
		}
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := client.Do(req)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		data, err := io.ReadAll(io.LimitReader(resp.Body, MaxPart))
		if err == nil && resp.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s: %s", url, resp.Status)
		}
		return data, err
	}
}

// Tail returns a function that reads the end of a file, at most [MaxPart] bytes.
func Tail(name string) func(context.Context) ([]byte, error) {
	return func(context.Context) ([]byte, error) {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() && info.Size() > MaxPart {
			if _, err := f.Seek(-MaxPart, io.SeekEnd); err != nil {
				return nil, err
			}
		}
		return io.ReadAll(io.LimitReader(f, MaxPart))
	}
}

// journalLines is how much of the journal is taken.
const journalLines = "20000"

// Journal returns the daemons' lines of systemd's journal.
func Journal(ctx context.Context) ([]byte, error) {
	args := []string{"--no-pager", "--lines", journalLines}
	for _, unit := range []string{"appswitch*", "ax*", "registryd*", "routerd*", "resolverd*", "nodeagentd*", "gatewayd*"} {
		args = append(args, "--unit", unit)
	}
	cmd := exec.CommandContext(ctx, "journalctl", args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil && stderr.Len() > 0 {
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return out, err
}
