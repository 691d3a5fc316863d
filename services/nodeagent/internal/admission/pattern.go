package admission

import "strings"

// match reports whether a pattern covers a whole text; a * stands for any characters, or none. It takes time in proportion to
// the product of both lengths at most.
func match(pattern, text string) bool {
	star, mark := -1, 0 // the last * in the pattern, and what it covers up to
	p, t := 0, 0
	for t < len(text) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, t
			p++
		case p < len(pattern) && pattern[p] == text[t]:
			p++
			t++
		case star >= 0: // let the * cover one more
			mark++
			p, t = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// matchPath is match element by element, so that a * ends at a slash. A last element ** stands for one or more of them.
func matchPath(pattern, path string) bool {
	if path == "" {
		return false
	}
	patterns, elements := strings.Split(pattern, "/"), strings.Split(path, "/")
	for i, p := range patterns {
		switch {
		case i == len(patterns)-1 && p == "**":
			return len(elements) > i && elements[i] != ""
		case i >= len(elements) || !match(p, elements[i]):
			return false
		}
	}
	return len(patterns) == len(elements)
}

// idLength is that of a container's id.
const idLength = 64

// ContainerID finds the id of a container in the path of a control group, as Docker, containerd, CRI-O and Podman write it:
// the last 64 hexadecimal digits in a row. It returns "" if there is none.
func ContainerID(cgroup string) string {
	id, run := "", 0
	for i := range len(cgroup) {
		if c := cgroup[i]; c >= '0' && c <= '9' || c >= 'a' && c <= 'f' {
			if run++; run == idLength {
				id = cgroup[i+1-idLength : i+1]
			}
			continue
		}
		run = 0
	}
	return id
}

// Cgroup returns the path in a file /proc/PID/cgroup: that of the unified hierarchy, or of systemd's own where there is none.
func Cgroup(file string) string {
	named := ""
	for line := range strings.Lines(file) {
		_, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		controllers, path, found := strings.Cut(rest, ":")
		switch {
		case found && controllers == "" && path != "":
			return path
		case found && controllers == "name=systemd":
			named = path
		}
	}
	return named
}
