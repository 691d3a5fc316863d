package config

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	"github.com/spf13/viper"
	"go.yaml.in/yaml/v3"
)

const (
	// blockDelimiter joins keys of nested blocks; no key contains it.
	blockDelimiter = "\x00"
	// maxFile is the size of a configuration file in bytes. A longer one is no configuration file.
	maxFile = 1 << 20
)

// fromFile sets the flags that a file has and no nearer source. A key is the name of a flag.
func fromFile(fs *pflag.FlagSet, given Origins, path string, foreign []string) (Origins, error) {
	content, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("configuration file: %w", err)
	}
	settings, err := parseFile(path, content)
	if err != nil {
		return nil, fmt.Errorf("configuration file %s: %w", path, err)
	}
	known := settable(fs)
	set := Origins{}
	var errs []error
	lines := linesOf(path, content)
	for _, key := range slices.Sorted(maps.Keys(settings)) {
		at := path + lines[key]
		switch {
		case !slices.Contains(known, key):
			if !matches(Variable(key), foreign) {
				errs = append(errs, fmt.Errorf("configuration file %s: unknown key %q%s", at, key, nearest(key, known)))
			}
			continue
		case given[key] != "" || settings[key] == nil: // a key without a value is unset, like an empty variable
			continue
		}
		set[key] = at
		if err := setFromFile(fs, key, settings[key]); err != nil {
			errs = append(errs, fmt.Errorf("configuration file %s: %s: %w", at, key, err))
		}
	}
	return set, errors.Join(errs...)
}

func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("%s has %d bytes, at most %d are read", path, info.Size(), maxFile)
	}
	return os.ReadFile(path)
}

// parseFile returns the keys and values of a file in the format that its name tells; a key without a value has nil.
func parseFile(path string, content []byte) (map[string]any, error) {
	format := strings.TrimPrefix(filepath.Ext(path), ".")
	if !slices.Contains(viper.SupportedExts, format) {
		return nil, fmt.Errorf("unknown format %q: name it .yaml, .toml or .json", format)
	}
	v := viper.NewWithOptions(viper.KeyDelimiter(blockDelimiter)) // so that a dot in a key is no hierarchy
	v.SetConfigType(format)
	if err := v.ReadConfig(bytes.NewReader(content)); err != nil {
		return nil, err
	}
	settings := v.AllSettings()
	for _, key := range v.AllKeys() { // AllSettings leaves out the keys that have no value
		if _, ok := settings[key]; !ok && !strings.Contains(key, blockDelimiter) {
			settings[key] = nil
		}
	}
	return settings, nil
}

// linesOf returns ":line" of each key of a YAML or JSON file; nothing for the keys of other formats.
func linesOf(path string, content []byte) map[string]string {
	lines := map[string]string{}
	switch filepath.Ext(path) {
	case ".yaml", ".yml", ".json":
	default:
		return lines
	}
	var doc yaml.Node
	if yaml.Unmarshal(content, &doc) != nil || len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		return lines // what is wrong with it, viper has said
	}
	for i := 0; i < len(doc.Content[0].Content); i += 2 {
		key := doc.Content[0].Content[i]
		lines[strings.ToLower(key.Value)] = ":" + strconv.Itoa(key.Line)
	}
	return lines
}

// setFromFile hands a value of the file to the flag in the form that the command line would have it.
func setFromFile(fs *pflag.FlagSet, name string, value any) error {
	switch v := value.(type) {
	case map[string]any:
		return errors.New("wants a value, not a block of further keys")
	case []any:
		words := make([]string, len(v))
		for i, e := range v {
			switch e.(type) {
			case map[string]any, []any, nil:
				return errors.New("wants a list of plain values")
			}
			words[i] = fmt.Sprint(e)
		}
		if list, ok := fs.Lookup(name).Value.(pflag.SliceValue); ok {
			if err := list.Replace(words); err != nil {
				return err
			}
			fs.Lookup(name).Changed = true
			return nil
		}
		return fs.Set(name, strings.Join(words, ","))
	default:
		return fs.Set(name, fmt.Sprint(v))
	}
}
