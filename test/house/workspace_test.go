package house

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// modulePrefix starts the path of every package that is ours.
const modulePrefix = "appswitch.io/"

// goPackage is what `go list -json` says about a package.
type goPackage struct {
	ImportPath   string
	Name         string
	Dir          string
	Standard     bool
	GoFiles      []string
	TestGoFiles  []string
	XTestGoFiles []string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

// path is the import path without the modules' common prefix.
func (p goPackage) path() string { return strings.TrimPrefix(p.ImportPath, modulePrefix) }

// generated says whether a program wrote the package.
func (p goPackage) generated() bool { return within(p.path(), "proto/gen") }

// files returns the Go files of the package, its tests included, as absolute names.
func (p goPackage) files() []string {
	var out []string
	for _, list := range [][]string{p.GoFiles, p.TestGoFiles, p.XTestGoFiles} {
		for _, f := range list {
			out = append(out, filepath.Join(p.Dir, f))
		}
	}
	return out
}

// list runs `go list` for the packages that args name, in the root of the workspace.
func list(args ...string) ([]goPackage, error) {
	root, err := findRoot()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("go", append([]string{"list", "-json"}, args...)...)
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, errors.New("go list: " + err.Error() + "\n" + stderr.String())
	}
	var packages []goPackage
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return packages, nil
		} else if err != nil {
			return nil, err
		}
		packages = append(packages, p)
	}
}

// findRoot returns the directory of go.work.
func findRoot() (string, error) {
	out, err := exec.Command("go", "env", "GOWORK").Output()
	return filepath.Dir(strings.TrimSpace(string(out))), err
}

func workspaceRoot(t *testing.T) string {
	t.Helper()
	dir, err := findRoot()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

var listOurs = sync.OnceValues(func() ([]goPackage, error) { return list("-tags=e2e,bench", "work") })

// workspace returns every package of the workspace; it fails the test if there are none.
func workspace(t *testing.T) []goPackage {
	t.Helper()
	packages, err := listOurs()
	if err != nil {
		t.Fatal(err)
	}
	if len(packages) == 0 {
		t.Fatal("go list found no package in the workspace")
	}
	return packages
}

// parse reads one Go file with its comments.
func parse(t *testing.T, name string) (*token.FileSet, *ast.File) {
	t.Helper()
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, name, nil, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	return fset, file
}

// within says whether path is prefix or lies below it.
func within(path, prefix string) bool {
	return path == prefix || strings.HasPrefix(path, prefix+"/")
}
