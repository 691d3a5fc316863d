// Package manifest reads and writes the files of `ax apply`: YAML documents, each of which says how one virtual service
// or policy is to be.
//
// Invariant: what Parse returns is valid as far as it can be known without the service table, and every error is one
// line that names file, document, line and field. Fields are called as in REST. Start reading at [Parse].
package manifest

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"appswitch.io/internal/ax"
	"go.yaml.in/yaml/v3"
)

// Limits of a file.
const (
	MaxBytes   = 1 << 20 // of a file
	MaxObjects = 1000    // documents of a file
)

// The kinds.
const (
	KindVirtualService = "VirtualService"
	KindPolicy         = "Policy"
)

// Object is one document.
type Object struct {
	Where string // file, document and line, for messages
	Kind  string
	Name  string
	Value any // ax.VirtualService or ax.Policy
}

// Short names the object as messages do: "vservice/web".
func (o Object) Short() string {
	if o.Kind == KindVirtualService {
		return "vservice/" + o.Name
	}
	return strings.ToLower(o.Kind) + "/" + o.Name
}

// Nearest returns ": did you mean x?" for the known words nearest to one that is not known, or nothing.
type Nearest func(word string, known []string) string

// Parse reads all documents of a file; file names it in errors. Empty documents count but are left out.
func Parse(file string, r io.Reader, nearest Nearest) ([]Object, error) {
	limited := &io.LimitedReader{R: r, N: MaxBytes + 1}
	decoder := yaml.NewDecoder(limited)
	var out []Object
	for number := 1; ; number++ {
		var doc yaml.Node
		err := decoder.Decode(&doc)
		switch {
		case limited.N <= 0:
			return nil, fmt.Errorf("%s: more than %d bytes: split it into several files", file, MaxBytes)
		case errors.Is(err, io.EOF) && len(out) == 0:
			return nil, fmt.Errorf("%s: nothing to apply: it has no document with a kind", file)
		case errors.Is(err, io.EOF):
			return out, nil
		case err != nil:
			return nil, fmt.Errorf("%s: document %d: %s", file, number, syntax(err))
		case number > MaxObjects:
			return nil, fmt.Errorf("%s: more than %d documents: split it into several files", file, MaxObjects)
		}
		d := document{file: file, number: number, nearest: nearest}
		o, empty, err := d.object(&doc)
		if err != nil {
			return nil, err
		}
		if !empty {
			out = append(out, o)
		}
	}
}

// Unique refuses objects of which two are the same: the order of files would decide.
func Unique(objects []Object) error {
	seen := map[string]Object{}
	for _, o := range objects {
		key := strings.ToLower(o.Short())
		if other, twice := seen[key]; twice {
			return fmt.Errorf("%s: %s is in %s already: leave one of them out", o.Where, o.Short(), other.Where)
		}
		seen[key] = o
	}
	return nil
}

// syntax writes a complaint of the YAML parser on one line, with what helps most often.
func syntax(err error) string {
	text := strings.Join(strings.Fields(strings.TrimPrefix(err.Error(), "yaml: ")), " ")
	switch {
	case strings.Contains(text, "cannot start any token"), strings.Contains(text, "tab character"):
		text += "; indent with blanks, not tabs, and quote text that begins with a special character"
	case strings.Contains(text, "mapping values are not allowed"):
		text += "; indent the fields of one thing alike, and quote text that contains ': '"
	default:
		text += "; it is not YAML"
	}
	return text
}

// object reads the top of a document and leaves the rest to its kind.
func (d document) object(doc *yaml.Node) (o Object, empty bool, err error) {
	if len(doc.Content) == 0 {
		return o, true, nil
	}
	top := doc.Content[0]
	if top.Kind == yaml.ScalarNode && top.Tag == "!!null" {
		return o, true, nil
	}
	d.line = top.Line
	fields, err := d.mapping("", top)
	if err != nil {
		return o, false, err
	}
	kind, err := d.text(fields, "kind")
	if err != nil {
		return o, false, err
	}
	kinds := []string{KindVirtualService, KindPolicy}
	switch kind {
	case KindVirtualService:
		o.Value, err = d.virtualService(fields)
	case KindPolicy:
		o.Value, err = d.policy(fields)
	case "":
		err = d.errorf(top, "kind", "missing: want %s", strings.Join(kinds, " or "))
	default:
		near := d.nearest(kind, kinds)
		if near == "" {
			near = ": want " + strings.Join(kinds, " or ")
		}
		err = d.errorf(fields.node("kind"), "kind", "%q is not known%s", kind, near)
	}
	if err != nil {
		return o, false, err
	}
	o.Where, o.Kind = d.where(top), kind
	switch v := o.Value.(type) {
	case ax.VirtualService:
		o.Name = v.Name
	case ax.Policy:
		o.Name = v.Name
	}
	if !presentable(o.Name) {
		return o, false, d.errorf(fields.node("name"), "name", "%q: want letters, digits, '-', '_' and '.', such as web", o.Name)
	}
	return o, false, nil
}

// presentable reports whether a name can stand in a message and in a path as it is. What a name may be is for the
// registry to say.
func presentable(name string) bool {
	other := func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("-_.", c)
	}
	return !strings.ContainsFunc(name, other) && strings.Trim(name, ".") != ""
}
