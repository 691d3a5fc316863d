package house

import (
	"bytes"
	"go/ast"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// maxFileLines is where a file certainly holds more than one subject; they aim at 400.
const maxFileLines = 600

func TestOneDocCommentPerPackage(t *testing.T) {
	for _, pkg := range workspace(t) {
		if pkg.generated() {
			continue
		}
		var documented []string
		for _, name := range pkg.files() {
			_, file := parse(t, name)
			if file.Doc == nil || strings.HasSuffix(file.Name.Name, "_test") {
				continue
			}
			documented = append(documented, filepath.Base(name))
			if text := file.Doc.Text(); !documentsPackage(text, pkg) {
				t.Errorf("%s: the package comment starts with %q, want %q or, of a command, its name", name, firstLine(text), "Package "+pkg.Name)
			}
		}
		if len(documented) != 1 {
			t.Errorf("%s has %d package comments %v, want exactly one: what it is, its one invariant, where to start reading",
				pkg.path(), len(documented), documented)
		}
	}
}

// documentsPackage says whether a comment begins as Go's do: "Package x …", "Command x …", or "X …" for the command x.
func documentsPackage(text string, pkg goPackage) bool {
	words := strings.FieldsFunc(text, func(r rune) bool { return r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) })
	if len(words) < 2 {
		return false
	}
	if pkg.Name != "main" {
		return words[0] == "Package" && words[1] == pkg.Name
	}
	command := filepath.Base(pkg.Dir)
	return words[0] == "Command" && words[1] == command || strings.EqualFold(words[0], command)
}

func TestFileLength(t *testing.T) {
	for _, pkg := range workspace(t) {
		for _, name := range pkg.files() {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			lines := bytes.Count(text, []byte("\n"))
			if _, file := parse(t, name); lines > maxFileLines && !ast.IsGenerated(file) {
				t.Errorf("%s has %d lines, more than %d: is it one subject?", name, lines, maxFileLines)
			}
		}
	}
}

func TestPackageNames(t *testing.T) {
	drawers := []string{"util", "utils", "common", "types", "helper", "helpers", "misc", "shared", "base", "lib"}
	for _, pkg := range workspace(t) {
		if slices.Contains(drawers, pkg.Name) {
			t.Errorf("%s: package %s says where things were put, not what they are", pkg.path(), pkg.Name)
		}
	}
}

// TestNoSkippedTests holds in CI, where nothing may be missing. A package that probes the kernel for a feature and
// proves it absent is listed here with its reason.
func TestNoSkippedTests(t *testing.T) {
	allowed := map[string]string{}
	for _, pkg := range workspace(t) {
		if _, ok := allowed[pkg.path()]; ok {
			continue
		}
		for _, name := range pkg.files() {
			fset, file := parse(t, name)
			ast.Inspect(file, func(n ast.Node) bool {
				if sel, ok := n.(*ast.SelectorExpr); ok && isSkip(sel) {
					t.Errorf("%s: a skipped test proves nothing; make what it needs available, or list the package with its reason",
						fset.Position(n.Pos()))
				}
				return true
			})
		}
	}
}

// isSkip recognises t.Skip and its kin, on receivers with the names they usually have.
func isSkip(sel *ast.SelectorExpr) bool {
	receiver, ok := sel.X.(*ast.Ident)
	return ok && slices.Contains([]string{"t", "b", "tb", "f"}, receiver.Name) &&
		slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, sel.Sel.Name)
}

// unfinished are the words that people leave where work is left; spelled so that this file has none of them.
var unfinished = regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X|HA` + `CK)\b|not (yet )?implemented`)

func TestNothingUnfinished(t *testing.T) {
	for _, pkg := range workspace(t) {
		if pkg.generated() || pkg.path() == "test/house" {
			continue
		}
		for _, name := range pkg.files() {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			for i, line := range strings.Split(string(text), "\n") {
				if unfinished.MatchString(line) {
					t.Errorf("%s:%d: unfinished: %s", name, i+1, strings.TrimSpace(line))
				}
			}
		}
	}
}

// TestNothingPanics: a daemon that takes a node's network down with it must not; errors are values. Test files may, and
// the functions listed here with their reason.
func TestNothingPanics(t *testing.T) {
	allowed := map[string]string{
		"services/gateway/internal/rest.survive": "passes on http.ErrAbortHandler, which is how net/http is told to drop a connection",
	}
	for _, pkg := range workspace(t) {
		if pkg.generated() {
			continue
		}
		for _, name := range pkg.files() {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			fset, file := parse(t, name)
			ast.Inspect(file, func(n ast.Node) bool {
				if f, ok := n.(*ast.FuncDecl); ok && allowed[pkg.path()+"."+f.Name.Name] != "" {
					return false
				}
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				if fun, ok := call.Fun.(*ast.Ident); ok && fun.Name == "panic" {
					report(t, fset, n.Pos(), "panic: return an error")
				}
				if fun, ok := call.Fun.(*ast.SelectorExpr); ok && isFatal(fun) {
					report(t, fset, n.Pos(), "log.Fatal: return an error; only main ends the process")
				}
				return true
			})
		}
	}
}

func isFatal(sel *ast.SelectorExpr) bool {
	receiver, ok := sel.X.(*ast.Ident)
	return ok && receiver.Name == "log" && strings.HasPrefix(sel.Sel.Name, "Fatal")
}

func report(t *testing.T, fset *token.FileSet, pos token.Pos, what string) {
	t.Helper()
	t.Errorf("%s: %s", fset.Position(pos), what)
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
