package output

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// Format is the form in which a command writes its result: the value of -o.
type Format string

// The formats.
const (
	FormatTable Format = "table"
	FormatWide  Format = "wide" // a table with more columns
	FormatJSON  Format = "json"
	FormatYAML  Format = "yaml"
	FormatName  Format = "name" // the name of each resource, one to a line
)

// FormatFlag is the pflag.Value of -o: a format out of those that a command knows.
type FormatFlag struct {
	Value   Format
	allowed []Format
}

// NewFormatFlag returns a flag that accepts the given formats; the first is the default.
func NewFormatFlag(allowed ...Format) *FormatFlag {
	return &FormatFlag{Value: allowed[0], allowed: allowed}
}

// String returns the present format.
func (f *FormatFlag) String() string { return string(f.Value) }

// Type names the value in a command's help.
func (f *FormatFlag) Type() string { return "format" }

// Set accepts one of the allowed formats.
func (f *FormatFlag) Set(s string) error {
	if !slices.Contains(f.allowed, Format(s)) {
		return fmt.Errorf("want one of %s", f.Choices())
	}
	f.Value = Format(s)
	return nil
}

// Choices lists the allowed formats.
func (f *FormatFlag) Choices() string { return strings.Join(f.Names(), ", ") }

// Names returns the allowed formats, for completion.
func (f *FormatFlag) Names() []string {
	out := make([]string, len(f.allowed))
	for i, a := range f.allowed {
		out[i] = string(a)
	}
	return out
}

// WriteData writes v, which marshals to JSON, as JSON or YAML.
func WriteData(w io.Writer, f Format, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode the result: %w", err)
	}
	return WriteJSON(w, f, data)
}

// WriteJSON writes a JSON document, as such or as YAML, in one layout whatever layout it came in.
func WriteJSON(w io.Writer, f Format, data []byte) error {
	var b bytes.Buffer
	if f == FormatYAML {
		text, err := yaml.JSONToYAML(data)
		if err != nil {
			return fmt.Errorf("encode the result as YAML: %w", err)
		}
		b.Write(text)
	} else {
		if err := json.Indent(&b, data, "", "  "); err != nil {
			return fmt.Errorf("encode the result: %w", err)
		}
		b.WriteByte('\n')
	}
	_, err := w.Write(b.Bytes())
	return err
}

// WriteLine writes a JSON document on one line.
func WriteLine(w io.Writer, data []byte) error {
	var b bytes.Buffer
	if err := json.Compact(&b, data); err != nil {
		return fmt.Errorf("encode the result: %w", err)
	}
	b.WriteByte('\n')
	_, err := w.Write(b.Bytes())
	return err
}
