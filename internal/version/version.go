// Package version tells which build this is.
//
// What -ldflags set wins, then what the go command recorded from version control; the answer is never empty.
// Start reading at [Get].
package version

import (
	"fmt"
	"runtime/debug"
	"strings"
	"time"
)

// Set with -ldflags "-X appswitch.io/internal/version.number=v1.2.3 -X ….revision=… -X ….date=…".
var (
	number   = "v0.1.0"
	revision = ""
	date     = ""
)

// revisionLength is how many digits of a commit are shown.
const revisionLength = 7

// Info describes a build.
type Info struct {
	Number   string // semantic version, such as v0.1.0
	Revision string // commit, shortened; "-dirty" is appended when files had been changed; empty if unknown
	Date     string // day of the commit, such as 2026-11-23; empty if unknown
}

// Get returns the description of this build.
func Get() Info {
	bi, ok := debug.ReadBuildInfo()
	if !ok {
		bi = &debug.BuildInfo{}
	}
	return infoFrom(bi.Settings)
}

func infoFrom(settings []debug.BuildSetting) Info {
	vcs := map[string]string{}
	for _, s := range settings {
		vcs[s.Key] = s.Value
	}
	rev, day := vcs["vcs.revision"], ""
	if len(rev) > revisionLength {
		rev = rev[:revisionLength]
	}
	if rev != "" && vcs["vcs.modified"] == "true" {
		rev += "-dirty"
	}
	if t, err := time.Parse(time.RFC3339, vcs["vcs.time"]); err == nil {
		day = t.UTC().Format(time.DateOnly)
	}
	if revision != "" {
		rev = revision
	}
	if date != "" {
		day = date
	}
	return Info{Number: number, Revision: rev, Date: day}
}

// String returns one line such as "v0.1.0 (abc1234, 2026-11-23)".
func (i Info) String() string {
	var known []string
	for _, s := range []string{i.Revision, i.Date} {
		if s != "" {
			known = append(known, s)
		}
	}
	if len(known) == 0 {
		return i.Number
	}
	return fmt.Sprintf("%s (%s)", i.Number, strings.Join(known, ", "))
}

// Line returns what --version prints for a program: "appswitch v0.1.0 (abc1234, 2026-11-23)".
func Line(program string) string { return program + " " + Get().String() }
