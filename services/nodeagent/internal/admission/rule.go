package admission

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Limits of the rules.
const (
	maxRules = 1024
	maxRule  = 4096 // bytes of one
)

// Rules grant claims; each by itself, so their order means nothing.
type Rules []Rule

// Rule says who may claim what: words KEY=VALUE with blanks between them. uid, gid, cgroup and container say who, and all
// that are there must hold; ip, name and label say what. A key that is given several times has several values, of which one
// must hold.
type Rule struct {
	uids, gids []span
	cgroups    []string // patterns of paths
	containers []string // patterns
	networks   []netip.Prefix
	names      []string // patterns
	labels     []labelPattern
}

type span struct{ first, last uint32 }

type labelPattern struct{ key, value string }

// ParseRules reads rules. The error names every one that is wrong.
func ParseRules(texts []string) (Rules, error) {
	if len(texts) > maxRules {
		return nil, fmt.Errorf("%d rules, at most %d", len(texts), maxRules)
	}
	var rules Rules
	var errs []error
	for i, text := range texts {
		r, err := parseRule(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("rule %d, %q: %w", i+1, text[:min(len(text), 80)], err))
			continue
		}
		rules = append(rules, r)
	}
	return rules, errors.Join(errs...)
}

const form = "want words such as uid=1001 ip=10.1.0.0/16 name=web-* label=role=prod"

func parseRule(text string) (Rule, error) {
	var r Rule
	if len(text) > maxRule {
		return r, fmt.Errorf("longer than %d characters", maxRule)
	}
	for word := range strings.FieldsSeq(text) {
		key, value, found := strings.Cut(word, "=")
		if !found || value == "" {
			return r, fmt.Errorf("%q: %s", word, form)
		}
		if err := r.add(key, value); err != nil {
			return r, fmt.Errorf("%s: %w", key, err)
		}
	}
	if len(r.uids)+len(r.gids)+len(r.cgroups)+len(r.containers) == 0 {
		return r, errors.New("doesn't say who: add uid=, gid=, cgroup= or container=")
	}
	if len(r.networks)+len(r.names)+len(r.labels) == 0 {
		return r, errors.New("grants nothing: add ip=, name= or label=")
	}
	return r, nil
}

// add reads one word.
func (r *Rule) add(key, value string) (err error) {
	switch key {
	case "uid":
		r.uids, err = appendSpan(r.uids, value)
	case "gid":
		r.gids, err = appendSpan(r.gids, value)
	case "cgroup":
		if value[0] != '/' {
			return fmt.Errorf("%q: want a path from the root of the control groups, such as /system.slice/web-*.service, or /kubepods/**", value)
		}
		r.cgroups = append(r.cgroups, value)
	case "container":
		r.containers = append(r.containers, value)
	case "ip":
		p, err := network(value)
		if err != nil {
			return err
		}
		r.networks = append(r.networks, p)
	case "name":
		r.names = append(r.names, strings.ToLower(value))
	case "label":
		k, v, found := strings.Cut(value, "=")
		if !found || k == "" || v == "" {
			return fmt.Errorf("%q: want KEY=VALUE, such as role=prod or role=*", value)
		}
		r.labels = append(r.labels, labelPattern{k, v})
	default:
		return errors.New("unknown: the keys are uid, gid, cgroup, container, ip, name and label")
	}
	return err
}

// network reads an address or a network.
func network(value string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(value); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(value)
	if err != nil || p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%q: want an address or a network, such as 10.1.0.0/16", value)
	}
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("%q has bits behind its length: %s is meant?", value, p.Masked())
	}
	return p, nil
}

// appendSpan reads a number or a range of numbers.
func appendSpan(to []span, value string) ([]span, error) {
	first, last, isRange := strings.Cut(value, "-")
	if !isRange {
		last = first
	}
	low, err := strconv.ParseUint(first, 10, 32)
	high, err2 := strconv.ParseUint(last, 10, 32)
	if err != nil || err2 != nil || low > high {
		return to, fmt.Errorf("%q: want a number or a range, such as 1001 or 1000-1999", value)
	}
	return append(to, span{uint32(low), uint32(high)}), nil
}

func (s span) has(n uint32) bool { return s.first <= n && n <= s.last }

// matches reports whether a rule is about a client.
func (r Rule) matches(c Client) bool {
	if len(r.uids) > 0 && !slices.ContainsFunc(r.uids, func(s span) bool { return s.has(uint32(c.UID)) }) { //nolint:gosec // the kernel's 32 bits
		return false
	}
	if len(r.gids) > 0 && !slices.ContainsFunc(r.gids, func(s span) bool { return slices.ContainsFunc(c.GIDs, s.has) }) {
		return false
	}
	if len(r.cgroups) > 0 && !slices.ContainsFunc(r.cgroups, func(p string) bool { return matchPath(p, c.Cgroup) }) {
		return false
	}
	return len(r.containers) == 0 || c.Container != "" &&
		slices.ContainsFunc(r.containers, func(p string) bool { return match(p, c.Container) })
}

func (r Rule) grantsIP(ip netip.Addr) bool {
	return slices.ContainsFunc(r.networks, func(p netip.Prefix) bool { return p.Contains(ip.Unmap()) })
}

func (r Rule) grantsName(name string) bool {
	name = strings.ToLower(name)
	return slices.ContainsFunc(r.names, func(p string) bool { return match(p, name) })
}

func (r Rule) grantsLabel(key, value string) bool {
	return slices.ContainsFunc(r.labels, func(p labelPattern) bool { return match(p.key, key) && match(p.value, value) })
}
