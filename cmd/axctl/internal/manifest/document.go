package manifest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// document is a place to report errors from.
type document struct {
	file    string
	number  int
	line    int // where it begins
	nearest Nearest
}

// where names a place.
func (d document) where(n *yaml.Node) string {
	line := d.line
	if n != nil && n.Line > 0 {
		line = n.Line
	}
	return fmt.Sprintf("%s: document %d, line %d", d.file, d.number, line)
}

func (d document) errorf(n *yaml.Node, field, format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	if field != "" {
		text = field + ": " + text
	}
	return fmt.Errorf("%s: %s", d.where(n), text)
}

// field is a key of a mapping with its value.
type field struct {
	name       string
	key, value *yaml.Node
}

// fields are those of a mapping, in order.
type fields []field

// node returns the value of a field, or nil if it is not there or null.
func (fs fields) node(name string) *yaml.Node {
	for _, f := range fs {
		if f.name == name && (f.value.Kind != yaml.ScalarNode || f.value.Tag != "!!null") {
			return f.value
		}
	}
	return nil
}

// resolve follows an alias; what it stands for is never one.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// mapping reads the fields of a mapping, each of which may be there once.
func (d document) mapping(name string, n *yaml.Node) (fields, error) {
	n = resolve(n)
	if n.Kind != yaml.MappingNode {
		return nil, d.errorf(n, name, "want fields, such as 'name: value', not %s", shape(n))
	}
	var out fields
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := resolve(n.Content[i])
		if key.Kind != yaml.ScalarNode {
			return nil, d.errorf(key, name, "want the name of a field, not %s", shape(key))
		}
		if slices.ContainsFunc(out, func(f field) bool { return f.name == key.Value }) {
			return nil, d.errorf(key, join(name, key.Value), "given twice: leave one of them out")
		}
		out = append(out, field{key.Value, key, resolve(n.Content[i+1])})
	}
	return out, nil
}

// known refuses fields that are none of names.
func (d document) known(of string, fs fields, names ...string) error {
	for _, f := range fs {
		if slices.Contains(names, f.name) {
			continue
		}
		near := d.nearest(f.name, names)
		if near == "" {
			near = ": it has " + strings.Join(names, ", ")
		}
		return d.errorf(f.key, "", "unknown field %q of %s%s", f.name, of, near)
	}
	return nil
}

// text reads a field that holds one value; empty if it is not there.
func (d document) text(fs fields, name string) (string, error) {
	n := fs.node(name)
	if n == nil {
		return "", nil
	}
	return d.scalar(name, n)
}

func (d document) scalar(name string, n *yaml.Node) (string, error) {
	if n = resolve(n); n.Kind != yaml.ScalarNode {
		return "", d.errorf(n, name, "want one value, not %s", shape(n))
	}
	return n.Value, nil
}

// list calls each for the elements of a field that holds a list; a single value is a list of one.
func (d document) list(fs fields, name string, each func(name string, n *yaml.Node) error) error {
	n := fs.node(name)
	if n == nil {
		return nil
	}
	switch n.Kind {
	case yaml.SequenceNode:
		for i, element := range n.Content {
			if err := each(name+"["+strconv.Itoa(i)+"]", resolve(element)); err != nil {
				return err
			}
		}
		return nil
	case yaml.ScalarNode:
		return each(name, n)
	}
	return d.errorf(n, name, "want a list, not %s", shape(n))
}

func shape(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "fields"
	case yaml.SequenceNode:
		return "a list"
	}
	return strconv.Quote(n.Value)
}

func join(parent, name string) string {
	if parent == "" {
		return name
	}
	return parent + "." + name
}
