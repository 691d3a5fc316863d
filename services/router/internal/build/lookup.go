package build

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"appswitch.io/internal/ax"
)

// Counts is how many records of each kind the table holds.
type Counts struct{ Nodes, Apps, Endpoints, VirtualServices, Policies, Claims int }

// Counts counts the table.
func (b *Builder) Counts() Counts {
	t := b.table
	return Counts{len(t.Nodes), len(t.Apps), len(t.Endpoints), len(t.VirtualServices), len(t.Policies), len(t.Claims)}
}

// App finds an application by id or name. Several applications of one name stand for each other if they carry the
// same labels.
func (b *Builder) App(idOrName string) (ax.App, error) {
	if app, ok := b.table.Apps[ax.AppID(idOrName)]; ok {
		return app, nil
	}
	var found []ax.App
	for _, app := range b.table.Apps {
		if app.DNSName() != "" && strings.EqualFold(app.DNSName(), idOrName) {
			found = append(found, app)
		}
	}
	if len(found) == 0 {
		return ax.App{}, fmt.Errorf("application %q is not in the service table: give an id or name of `ax get apps`", idOrName)
	}
	slices.SortFunc(found, func(x, y ax.App) int { return strings.Compare(string(x.ID), string(y.ID)) })
	for _, other := range found[1:] {
		if !maps.Equal(other.Labels, found[0].Labels) {
			return ax.App{}, fmt.Errorf("application %q: %s (%s) and %s (%s) have that name: give an id",
				idOrName, found[0].ID, found[0].Labels, other.ID, other.Labels)
		}
	}
	return found[0], nil
}

// Addrs returns the addresses of a name, sorted: those of virtual services, applications and claims of that name.
func (b *Builder) Addrs(name string) []netip.Addr {
	found := map[netip.Addr]struct{}{}
	add := func(candidate string, a netip.Addr) {
		if name != "" && a.IsValid() && strings.EqualFold(candidate, name) {
			found[a] = struct{}{}
		}
	}
	for _, v := range b.table.VirtualServices {
		add(v.Name, v.Addr)
	}
	for _, app := range b.table.Apps {
		add(app.DNSName(), app.Addr)
	}
	for _, c := range b.table.Claims {
		add(c.Name, c.Addr)
	}
	return slices.SortedFunc(maps.Keys(found), netip.Addr.Compare)
}
