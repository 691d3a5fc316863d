package admission

import (
	"strings"
	"testing"
)

func TestMatch(t *testing.T) {
	for _, tc := range []struct {
		pattern, text string
		want          bool
	}{
		{"", "", true}, {"", "a", false}, {"*", "", true}, {"*", "a/b", true}, {"a", "a", true}, {"a", "b", false}, {"a*", "a", true},
		{"a*c", "abc", true}, {"a*c", "abcd", false}, {"*b*", "abc", true}, {"a*b*c", "aXbYbZc", true}, {"a*b*c", "aXc", false},
		{"**", "x", true}, {"a?", "ab", false}, {"*a", strings.Repeat("a", 100) + "b", false},
	} {
		if got := match(tc.pattern, tc.text); got != tc.want {
			t.Errorf("match(%q, %q) = %v", tc.pattern, tc.text, got)
		}
	}
}

func TestMatchPath(t *testing.T) {
	for _, tc := range []struct {
		pattern, path string
		want          bool
	}{
		{"/", "/", true}, {"/a", "/a", true}, {"/a", "/a/b", false}, {"/a/*", "/a/b", true}, {"/a/*", "/a/b/c", false}, {"/a/*", "/a", false},
		{"/a/**", "/a/b/c", true}, {"/a/**", "/a", false}, {"/a/**", "/a/", false}, {"/a/**", "/ab/c", false}, {"/**", "/a", true}, {"/**", "", false},
		{"/*/b", "/x/b", true}, {"/**/b", "/x/b", true}, {"/**/b", "/x/y/b", false},
	} {
		if got := matchPath(tc.pattern, tc.path); got != tc.want {
			t.Errorf("matchPath(%q, %q) = %v", tc.pattern, tc.path, got)
		}
	}
}

func TestContainerID(t *testing.T) {
	id := someContainer
	for path, want := range map[string]string{
		"/system.slice/docker-" + id + ".scope": id,
		"/docker/" + id:                         id,
		"/kubepods.slice/kubepods-pod0123.slice/cri-containerd-" + id: id,
		"/machine.slice/libpod-" + id + ".scope/container":            id,
		"/user.slice":                    "",
		"":                               "",
		"/docker/" + id[:idLength-1]:     "",
		"/docker/" + strings.ToUpper(id): "",
	} {
		if got := ContainerID(path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

func TestCgroup(t *testing.T) {
	for file, want := range map[string]string{
		"0::/system.slice/x.service\n":             "/system.slice/x.service",
		"12:memory:/m\n1:name=systemd:/s:1\n":      "/s:1",
		"12:memory:/m\n1:name=systemd:/s\n0::/u\n": "/u",
		"": "", "nonsense": "", "0::": "", "3:cpu:/x": "",
	} {
		if got := Cgroup(file); got != want {
			t.Errorf("%q: %q, want %q", file, got, want)
		}
	}
}

// FuzzRule: no text makes the parser or what it parsed panic, and a rule never grants anything to whom it does not name.
func FuzzRule(f *testing.F) {
	for _, s := range []string{"uid=1001 ip=1.1.1.0/24", "gid=1-9 name=a*b label=k=*", "cgroup=/a/** container=3f* ip=::/0", "uid=1 ip=1.1.1.1/33", "=", "label=a=b=c uid=0"} {
		f.Add(s, "/a/b", "a*b")
	}
	f.Fuzz(func(t *testing.T, text, path, name string) {
		rs, err := ParseRules([]string{text})
		if (err == nil) != (len(rs) == 1) {
			t.Fatalf("%d rules, %v", len(rs), err)
		}
		refused := rs.Refused(Client{UID: 1001, Cgroup: path, Container: ContainerID(path)}, Claims{Name: name})
		if name == "" && refused != nil {
			t.Errorf("nothing claimed, %v refused", refused)
		}
		if name != "" && len(rs) == 1 && len(refused) == 0 && !rs[0].matches(Client{UID: 1001, Cgroup: path, Container: ContainerID(path)}) {
			t.Errorf("%q grants %q to another", text, name)
		}
		// A pattern without a * covers itself alone.
		if !strings.Contains(name, "*") && match(name, path) != (name == path) {
			t.Errorf("match(%q, %q)", name, path)
		}
	})
}
