package cli

import (
	"errors"

	"github.com/spf13/pflag"
)

var errUnavailable = errors.New("not available in this version: leave it out")

// unavailable is a documented flag that this version does not have. Giving it is an error: it must not be accepted
// without effect.
type unavailable struct{}

func (unavailable) String() string   { return "" }
func (unavailable) Type() string     { return "value" }
func (unavailable) Set(string) error { return errUnavailable }

// addUnavailable adds hidden flags of that kind.
func addUnavailable(fs *pflag.FlagSet, names ...string) {
	for _, name := range names {
		fs.Var(unavailable{}, name, "not available in this version")
		f := fs.Lookup(name)
		f.Hidden, f.NoOptDefVal = true, "true"
	}
}
