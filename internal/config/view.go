package config

import (
	"cmp"
	"fmt"
	"io"
	"net/url"
	"strings"
	"text/tabwriter"

	"github.com/spf13/pflag"
)

// Masked stands for a value that is not for every eye.
const Masked = "********"

// fromDefault is the source of a value that nobody gave.
const fromDefault = "default"

// Setting is an option as it holds.
type Setting struct {
	Name   string `json:"name"`   // of the flag
	Value  string `json:"value"`  // in the form that the command line takes; secrets are masked
	Source string `json:"source"` // where it came from, see Origins, or "default"
}

// View lists all options, by name, that a program may have from elsewhere than the command line, and where each came
// from. The hidden ones are left out unless they were given.
func View(fs *pflag.FlagSet, origins Origins) []Setting {
	var out []Setting
	fs.VisitAll(func(f *pflag.Flag) {
		source := origins[f.Name]
		switch {
		case f.Name != FileFlag && !isOption(f.Name), f.Hidden && source == "":
			return
		case source == "":
			source = fromDefault
		}
		out = append(out, Setting{Name: f.Name, Value: Mask(f.Name, valueOf(f)), Source: source})
	})
	return out
}

// WriteView writes settings as a table.
func WriteView(w io.Writer, settings []Setting) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "OPTION\tVALUE\tSOURCE")
	for _, s := range settings {
		fmt.Fprintf(t, "%s\t%s\t%s\n", s.Name, cmp.Or(s.Value, "-"), s.Source)
	}
	return t.Flush()
}

// valueOf returns a flag's value as the command line takes it: lists without the brackets that they print.
func valueOf(f *pflag.Flag) string {
	if list, ok := f.Value.(pflag.SliceValue); ok {
		return strings.Join(list.GetSlice(), ",")
	}
	return f.Value.String()
}

// secretWords end the names of options whose values are secrets. Paths of keys are none.
var secretWords = []string{"password", "secret", "token"}

// Mask hides what is secret in the value of an option: all of it by the option's name, or the password of a URL.
func Mask(name, value string) string {
	if value == "" {
		return value
	}
	for _, w := range secretWords {
		if strings.HasSuffix(name, w) {
			return Masked
		}
	}
	parts := strings.Split(value, ",")
	for i, p := range parts {
		scheme, rest, ok := strings.Cut(p, "://")
		if !ok || !strings.Contains(rest, "@") {
			continue
		}
		u, err := url.Parse(p)
		if err != nil {
			parts[i] = scheme + "://" + Masked
		} else if _, has := u.User.Password(); has {
			_, host, _ := strings.Cut(rest, "@")
			parts[i] = scheme + "://" + url.User(u.User.Username()).String() + ":" + Masked + "@" + host
		}
	}
	return strings.Join(parts, ",")
}
