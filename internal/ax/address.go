package ax

import (
	"errors"
	"fmt"
	"net/netip"
)

// CheckVirtual says why an address can't be one at which a service is: it names no machine, every application has it to
// itself, it means another machine on every link, or it is another way to write an IPv4 address.
func CheckVirtual(a netip.Addr) error {
	switch {
	case !a.IsValid():
		return errors.New("no address")
	case a.Zone() != "":
		return fmt.Errorf("%s has a zone, which only link-local addresses need", a)
	case a.Is4In6():
		return fmt.Errorf("%s is IPv4-mapped: write %s", a, a.Unmap())
	case a.IsUnspecified(), a.IsMulticast(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return fmt.Errorf("%s is not the address of one service", a)
	case a.IsLoopback():
		return fmt.Errorf("%s is loopback, which every application has to itself", a)
	case a.IsLinkLocalUnicast():
		return fmt.Errorf("%s is link-local, which means another machine on every link", a)
	}
	return nil
}
