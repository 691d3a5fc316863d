package dirs_test

import (
	"slices"
	"testing"

	"appswitch.io/services/nodeagent/launch/dirs"
)

func TestDirectories(t *testing.T) {
	for name, tc := range map[string]struct {
		uid                     int
		env                     map[string]string
		exist                   []string
		run, find, state, agent string
	}{
		"root": {0, map[string]string{"HOME": "/root", "XDG_RUNTIME_DIR": "/run/user/0", "XDG_STATE_HOME": "/x"}, nil,
			"/var/run/appswitch", "/var/run/appswitch", "/var/lib/appswitch", "/run/appswitch-agent"},
		"user, no daemon of his own": {1001, map[string]string{"HOME": "/home/u", "XDG_RUNTIME_DIR": "/run/user/1001"}, nil,
			"/run/user/1001/appswitch", "/var/run/appswitch", "/home/u/.local/state/appswitch", "/run/user/1001/appswitch-agent"},
		"user, with one": {1001, map[string]string{"HOME": "/home/u", "XDG_RUNTIME_DIR": "/r"}, []string{"/r/appswitch/agent.sock"},
			"/r/appswitch", "/r/appswitch", "/home/u/.local/state/appswitch", "/r/appswitch-agent"},
		"under su, which leaves the variable out": {1001, map[string]string{"HOME": "/home/u"}, []string{"/run/user/1001", "/run/user/1001/appswitch/agent.sock"},
			"/run/user/1001/appswitch", "/run/user/1001/appswitch", "/home/u/.local/state/appswitch", "/run/user/1001/appswitch-agent"},
		"no session": {1001, map[string]string{"HOME": "/home/u", "XDG_STATE_HOME": "/s"}, []string{"/s/appswitch/run/agent.sock"},
			"/s/appswitch/run", "/s/appswitch/run", "/s/appswitch", "/s/appswitch/agent"},
		"relative names are none": {1001, map[string]string{"HOME": "/h", "XDG_RUNTIME_DIR": "r", "XDG_STATE_HOME": "s"}, nil,
			"/h/.local/state/appswitch/run", "/var/run/appswitch", "/h/.local/state/appswitch", "/h/.local/state/appswitch/agent"},
		"nothing at all": {1001, nil, nil, "", "/var/run/appswitch", "", ""},
		"named": {1001, map[string]string{"HOME": "/h", "AX_RUN_DIR": "/named"}, nil,
			"/h/.local/state/appswitch/run", "/named", "/h/.local/state/appswitch", "/h/.local/state/appswitch/agent"},
	} {
		t.Run(name, func(t *testing.T) {
			u := dirs.User{
				UID: tc.uid, Getenv: func(key string) string { return tc.env[key] },
				Exists: func(path string) bool { return slices.Contains(tc.exist, path) },
			}
			for _, d := range []struct{ what, got, want string }{
				{"Run", u.Run(), tc.run}, {"Find", u.Find(), tc.find}, {"State", u.State(), tc.state}, {"AgentState", u.AgentState(), tc.agent},
			} {
				if d.got != d.want {
					t.Errorf("%s: %q, want %q", d.what, d.got, d.want)
				}
			}
		})
	}
}
