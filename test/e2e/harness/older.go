package harness

import (
	"os"
	"os/exec"
	"path/filepath"
)

// Older is a commit from before the present version. What it left behind, on a machine that is upgraded, has to go on
// working: its holders, its journals and its saved state. It moves on when that is given up.
const Older = "b06a81e"

// OlderPrograms builds `ax` and the node agent of the commit [Older], and returns their names. Where git doesn't have it, in
// a shallow clone or outside of one, they are those of this version, built once more with debugging information, and what
// is said of them is "".
func (l *Lab) OlderPrograms() (ax, agent, version string) {
	l.t.Helper()
	dir, tree := l.Path("bin", "older"), l.Path("older")
	for _, d := range []string{dir, tree} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			l.t.Fatal(err)
		}
	}
	root, version := filepath.Dir(l.bin), Older
	git := func(args ...string) *exec.Cmd {
		return exec.Command("git", append([]string{"-c", "safe.directory=*", "-C", root}, args...)...)
	}
	if git("cat-file", "-e", Older+"^{commit}").Run() == nil {
		archive := filepath.Join(l.Path(), "older.tar")
		if out, err := git("archive", "--output", archive, Older).CombinedOutput(); err != nil {
			l.t.Fatalf("git archive %s: %v\n%s", Older, err, out)
		}
		l.build(nil, "tar", "-xf", archive, "-C", tree)
	} else {
		tree, version = root, ""
	}
	l.build([]string{"CGO_ENABLED=0"}, "go", "build", "-C", tree, "-trimpath", "-buildvcs=false", "-tags=exactsignals", "-ldflags=-checklinkname=0",
		"-o", dir+"/", "./cmd/axctl", "./services/nodeagent/cmd/nodeagentd")
	return filepath.Join(dir, "axctl"), filepath.Join(dir, "nodeagentd"), version
}
