package daemon

import (
	"errors"
	"slices"

	"github.com/spf13/pflag"
)

// merge adds the flags of from to fs, but for some. Where a flag is there already, one flag then sets both: several
// services may have an option in common.
func merge(fs, from *pflag.FlagSet, except ...string) {
	from.VisitAll(func(f *pflag.Flag) {
		if slices.Contains(except, f.Name) {
			return
		}
		known := fs.Lookup(f.Name)
		if known == nil {
			fs.AddFlag(f)
			return
		}
		known.Value = &shared{Value: known.Value, others: []pflag.Value{f.Value}}
	})
}

// shared is a value that several services have.
type shared struct {
	pflag.Value
	others []pflag.Value
}

// Set sets all of them.
func (s *shared) Set(v string) error {
	err := s.Value.Set(v)
	for _, o := range s.others {
		err = errors.Join(err, o.Set(v))
	}
	return err
}

// later are the documented flags that this version does not have. Giving one is an error: it must not be accepted
// without effect.
var later = []string{
	"neighbors", "gossip-port", "gossip-auto-discover", "egress-gateway",
	"federation-gateway-ip", "federation-gateway-advertise-ip", "federation-gateway-port",
	"federation-gateway-gossip-port", "federation-gateway-neighbors",
}

// ErrUnavailable says that a documented flag is not in this version.
var ErrUnavailable = errors.New("not available in this version: leave it out")

type unavailable struct{}

func (unavailable) String() string   { return "" }
func (unavailable) Type() string     { return "value" }
func (unavailable) Set(string) error { return ErrUnavailable }

// AddUnavailable adds hidden flags that can't be set; those that are there already are left alone.
func AddUnavailable(fs *pflag.FlagSet, names ...string) {
	for _, name := range names {
		if fs.Lookup(name) == nil {
			fs.Var(unavailable{}, name, ErrUnavailable.Error())
			f := fs.Lookup(name)
			f.Hidden, f.NoOptDefVal = true, "true"
		}
	}
}
