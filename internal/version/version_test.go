package version

import (
	"runtime/debug"
	"testing"
)

func TestInfoComesFromVersionControl(t *testing.T) {
	vcs := []debug.BuildSetting{
		{Key: "vcs.revision", Value: "abc1234def5678"},
		{Key: "vcs.time", Value: "2026-11-23T22:30:00Z"},
		{Key: "vcs.modified", Value: "false"},
	}
	dirty := append([]debug.BuildSetting{}, vcs...)
	dirty[2].Value = "true"
	for _, c := range []struct {
		name     string
		settings []debug.BuildSetting
		want     string
	}{
		{"clean", vcs, "v0.1.0 (abc1234, 2026-11-23)"},
		{"dirty", dirty, "v0.1.0 (abc1234-dirty, 2026-11-23)"},
		{"unknown", nil, "v0.1.0"},
		{"short and undated", []debug.BuildSetting{{Key: "vcs.revision", Value: "abc"}}, "v0.1.0 (abc)"},
	} {
		if got := infoFrom(c.settings).String(); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func TestLinkerFlagsWin(t *testing.T) {
	defer func(n, r, d string) { number, revision, date = n, r, d }(number, revision, date)
	number, revision, date = "v9.8.7", "feed", "2030-01-02"
	got := infoFrom([]debug.BuildSetting{{Key: "vcs.revision", Value: "abc1234"}, {Key: "vcs.time", Value: "2026-11-23T00:00:00Z"}})
	if want := "v9.8.7 (feed, 2030-01-02)"; got.String() != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestLineStartsWithTheProgram(t *testing.T) {
	if got, want := Line("registryd"), "registryd "+Get().String(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
