package server

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"appswitch.io/internal/ax"
)

// Limits of names (RFC 1123).
const (
	maxName  = 253
	maxLabel = 63
)

// checkServiceName accepts a DNS label, or several of them joined by dots.
func checkServiceName(field, name string) error {
	if name == "" || len(name) > maxName {
		return fmt.Errorf("%s: %q has %d characters, 1 to %d", field, name, len(name), maxName)
	}
	for label := range strings.SplitSeq(name, ".") {
		if err := checkLabel(label); err != nil {
			return fmt.Errorf("%s: %q: %w", field, name, err)
		}
	}
	return nil
}

func checkLabel(label string) error {
	switch {
	case label == "" || len(label) > maxLabel:
		return fmt.Errorf("the parts between dots have 1 to %d characters", maxLabel)
	case label[0] == '-' || label[len(label)-1] == '-':
		return errors.New("a part between dots neither begins nor ends with '-'")
	}
	for _, c := range []byte(label) {
		if !alphanumeric(c) && c != '-' && c != '_' {
			return fmt.Errorf("%q is none of letters, digits, '-' and '_'", c)
		}
	}
	return nil
}

func checkNode(n ax.Node) error {
	if n.Cluster == "" {
		return errors.New("node.cluster: missing")
	}
	return checkNodeName(string(n.Name))
}

func checkNodeName(name string) error {
	if name == "" || len(name) > maxName {
		return fmt.Errorf("node.name: %q has %d characters, 1 to %d", name, len(name), maxName)
	}
	for _, c := range []byte(name) {
		if !alphanumeric(c) && c != '.' && c != '_' && c != '-' {
			return fmt.Errorf("node.name: %q: %q is none of letters, digits, '.', '_' and '-'", name, c)
		}
	}
	return nil
}

func alphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// checkVirtual accepts addresses at which a service can be.
func checkVirtual(field string, a netip.Addr) error {
	if err := ax.CheckVirtual(a); err != nil {
		return fmt.Errorf("%s: %w", field, err)
	}
	return nil
}
