package attach

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"appswitch.io/services/nodeagent/internal/driver/seccomp"
	"appswitch.io/services/nodeagent/launch/wire"
)

// record is what a restart of the agent needs to know of an application, one JSON file each.
type record struct {
	App   seccomp.App
	Token string
	Hello wire.Hello

	Drained bool `json:",omitempty"` // it gets no new connections
}

// store keeps the records in a directory on tmpfs that only the agent can read.
type store struct{ dir string }

const recordSuffix = ".json"

func openStore(dir string, clean bool) (store, error) {
	if clean {
		if err := os.RemoveAll(dir); err != nil {
			return store{}, fmt.Errorf("remove saved applications: %w", err)
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return store{}, fmt.Errorf("make directory for applications: %w", err)
	}
	return store{dir}, nil
}

func (s store) path(r record) string { return filepath.Join(s.dir, string(r.App.ID)+recordSuffix) }

// put writes a record so that it is either there whole or not at all.
func (s store) put(r record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode application %s: %w", r.App.ID, err)
	}
	tmp := s.path(r) + ".tmp"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return fmt.Errorf("save application: %w", err)
	}
	if err := os.Rename(tmp, s.path(r)); err != nil {
		return fmt.Errorf("save application: %w", err)
	}
	return nil
}

func (s store) drop(r record) error {
	if err := os.Remove(s.path(r)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("drop saved application: %w", err)
	}
	return nil
}

// load returns every record that can be read, and the errors of those that can't.
func (s store) load() ([]record, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("list saved applications: %w", err)
	}
	var out []record
	var errs []error
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), recordSuffix) {
			continue
		}
		var r record
		b, err := os.ReadFile(filepath.Join(s.dir, e.Name()))
		if err == nil {
			err = json.Unmarshal(b, &r)
		}
		if err != nil || r.App.ID == "" {
			errs = append(errs, fmt.Errorf("saved application %s: %w", e.Name(), errors.Join(err, os.Remove(filepath.Join(s.dir, e.Name())))))
			continue
		}
		out = append(out, r)
	}
	return out, errors.Join(errs...)
}
