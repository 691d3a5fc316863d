package launch

import (
	"errors"
	"strings"
	"syscall"
	"testing"
)

func TestRefusedAddress(t *testing.T) {
	for _, c := range []struct {
		errno syscall.Errno
		size  int
		want  string
	}{
		{syscall.EOPNOTSUPP, ipv6Size, "IPv6 switched off"},
		{syscall.EAFNOSUPPORT, ipv6Size, "IPv6 switched off"},
		{syscall.EACCES, ipv6Size, "IPv6 switched off"},
		{syscall.EPERM, ipv6Size, "operation not permitted"},
		{syscall.EACCES, ipv4Size, "permission denied"},
	} {
		err := refusedAddress(c.errno, "ADDRESS", "eth7", c.size)
		if !errors.Is(err, c.errno) || !strings.Contains(err.Error(), "put ADDRESS on eth7: ") || !strings.Contains(err.Error(), c.want) ||
			strings.Contains(err.Error(), "IPv6") != strings.Contains(c.want, "IPv6") {
			t.Errorf("%v for %d bytes: %v, want %q", c.errno, c.size, err, c.want)
		}
	}
}
