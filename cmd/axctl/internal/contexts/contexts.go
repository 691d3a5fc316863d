// Package contexts keeps the daemons that a user talks to by name: ~/.config/appswitch/config.yaml.
//
// Invariant: the file is read strictly and replaced as a whole, so that a mistake in it is an error and never another
// daemon, and a crash leaves the old file. Start reading at [Load].
package contexts

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// Limits of the file.
const (
	MaxFile     = 1 << 20 // bytes
	MaxContexts = 1024
	maxName     = 253 // bytes of a context's name
)

// Context is a daemon under a name.
type Context struct {
	Name   string `json:"name"`
	Server string `json:"server"` // URL of its REST interface, or HOST:PORT
	TLS    Files  `json:"tls,omitzero"`
}

// Files are PEM files for mutual TLS, by their absolute names; all of them or none.
type Files struct {
	CACert string `json:"ca-cert"`
	Cert   string `json:"cert"`
	Key    string `json:"key"`
}

// File is the content of the file.
type File struct {
	Current  string    `json:"current-context"` // name of the context in use; empty: none
	Contexts []Context `json:"contexts"`        // by name
}

// Path returns the name of the user's file: in $XDG_CONFIG_HOME, or else in ~/.config.
func Path() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("find the configuration directory: %w; set HOME or XDG_CONFIG_HOME", err)
	}
	return filepath.Join(dir, "appswitch", "config.yaml"), nil
}

// Load reads the file at path; one that is not there is empty.
func Load(path string) (File, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return File{}, nil
	}
	if err != nil {
		return File{}, fmt.Errorf("contexts: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err != nil {
		return File{}, fmt.Errorf("contexts: %w", err)
	}
	out, err := Decode(data)
	if err != nil {
		return File{}, fmt.Errorf("contexts: %s: %w; correct it, or remove the file and start over with `ax config set-context`", path, err)
	}
	return out, nil
}

// Decode reads what a file holds.
func Decode(data []byte) (File, error) {
	var f File
	if len(data) > MaxFile {
		return f, fmt.Errorf("larger than %d bytes", MaxFile)
	}
	if err := yaml.UnmarshalStrict(data, &f); err != nil {
		text := strings.TrimPrefix(oneLine(err), "error unmarshaling JSON: while decoding JSON: ")
		return File{}, errors.New(strings.TrimPrefix(text, "json: "))
	}
	if len(f.Contexts) > MaxContexts {
		return File{}, fmt.Errorf("%d contexts: at most %d", len(f.Contexts), MaxContexts)
	}
	for i, c := range f.Contexts {
		if err := c.Validate(); err != nil {
			return File{}, err
		}
		if index(f.Contexts[:i], c.Name) >= 0 {
			return File{}, fmt.Errorf("context %q is there twice", c.Name)
		}
	}
	if f.Current != "" {
		if _, ok := f.Get(f.Current); !ok {
			return File{}, fmt.Errorf("current-context %q is not one of the contexts", f.Current)
		}
	}
	f.sort()
	return f, nil
}

func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// Validate reports what makes a context unusable.
func (c Context) Validate() error {
	switch {
	case c.Name == "" || len(c.Name) > maxName || strings.ContainsFunc(c.Name, func(r rune) bool { return r <= ' ' || r == 0x7f }):
		return fmt.Errorf("context name %q: want 1 to %d characters without blanks", c.Name, maxName)
	case c.Server == "":
		return fmt.Errorf("context %q: server is missing", c.Name)
	}
	given := 0
	for _, file := range []string{c.TLS.CACert, c.TLS.Cert, c.TLS.Key} {
		if file == "" {
			continue
		}
		given++
		if !filepath.IsAbs(file) {
			return fmt.Errorf("context %q: TLS file %q: want an absolute name", c.Name, file)
		}
	}
	if given != 0 && given != 3 {
		return fmt.Errorf("context %q: TLS needs ca-cert, cert and key, or none of them", c.Name)
	}
	return nil
}

// Get returns the context of a name.
func (f File) Get(name string) (Context, bool) {
	i := index(f.Contexts, name)
	if i < 0 {
		return Context{}, false
	}
	return f.Contexts[i], true
}

func index(list []Context, name string) int {
	return slices.IndexFunc(list, func(c Context) bool { return c.Name == name })
}

// Names returns the names of all contexts, sorted.
func (f File) Names() []string {
	names := make([]string, len(f.Contexts))
	for i, c := range f.Contexts {
		names[i] = c.Name
	}
	return names
}

// Set adds a context or replaces the one of its name, and tells which of both.
func (f *File) Set(c Context) (replaced bool, err error) {
	if err := c.Validate(); err != nil {
		return false, err
	}
	if i := index(f.Contexts, c.Name); i >= 0 {
		f.Contexts[i] = c
		return true, nil
	}
	if len(f.Contexts) >= MaxContexts {
		return false, fmt.Errorf("there are %d contexts already: delete one", MaxContexts)
	}
	f.Contexts = append(f.Contexts, c)
	f.sort()
	return false, nil
}

// Delete removes a context, and tells whether it was there. If it was the current one there is none afterwards.
func (f *File) Delete(name string) bool {
	n := len(f.Contexts)
	f.Contexts = slices.DeleteFunc(f.Contexts, func(c Context) bool { return c.Name == name })
	if f.Current == name {
		f.Current = ""
	}
	return len(f.Contexts) < n
}

func (f *File) sort() {
	slices.SortFunc(f.Contexts, func(a, b Context) int { return cmp.Compare(a.Name, b.Name) })
}

// Save writes the file at path, readable for its owner only, and makes its directory.
func (f File) Save(path string) error {
	data, err := yaml.Marshal(f)
	if err != nil {
		return fmt.Errorf("encode the contexts: %w", err)
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("contexts: %w", err)
	}
	tmp, err := os.CreateTemp(dir, ".config-*.yaml") // with mode 0600
	if err != nil {
		return fmt.Errorf("contexts: %w", err)
	}
	_, err = tmp.Write(data)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("contexts: %w", errors.Join(err, os.Remove(tmp.Name())))
	}
	return nil
}
