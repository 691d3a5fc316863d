package harness

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a live process of a lab.
type process struct {
	pid     int
	command string
}

func (p process) String() string { return fmt.Sprintf("%d (%s)", p.pid, p.command) }

// processes returns the live processes whose lab's name starts with the given one, the test binary left out.
func processes(lab string) []process {
	marker := []byte(labVar + "=" + lab)
	entries, _ := os.ReadDir("/proc")
	var out []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		environ, err := os.ReadFile(filepath.Join("/proc", e.Name(), "environ"))
		if err != nil {
			continue // gone, or a zombie: its parent's business
		}
		if !slices.ContainsFunc(bytes.Split(environ, []byte{0}), func(v []byte) bool { return bytes.HasPrefix(v, marker) }) {
			continue
		}
		command, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		out = append(out, process{pid, strings.TrimSpace(string(bytes.ReplaceAll(command, []byte{0}, []byte{' '})))})
	}
	return out
}

// killProcesses kills the processes of a lab until there are none. They may be forking, hence the rounds.
func killProcesses(lab string) {
	for range 100 {
		alive := processes(lab)
		if len(alive) == 0 {
			return
		}
		for _, p := range alive {
			_ = syscall.Kill(p.pid, syscall.SIGKILL)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// mounts returns the mount points of this mount namespace whose entry contains text, the innermost first.
func mounts(text string) []string {
	table, _ := os.ReadFile("/proc/self/mountinfo")
	var out []string
	for line := range strings.Lines(string(table)) {
		// `ip netns add` mounts the namespaces' names; they are counted as namespaces.
		if fields := strings.Fields(line); len(fields) > 4 && strings.Contains(line, text) && !strings.HasPrefix(fields[4], netnsDir) {
			out = append(out, fields[4])
		}
	}
	slices.Reverse(out)
	return out
}

// controlGroups returns the control groups that carry AppSwitch's name.
func controlGroups() []string {
	var out []string
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.Contains(d.Name(), "appswitch") {
			out = append(out, path)
		}
		return nil // groups come and go while we walk
	})
	return out
}

// listening returns the listening TCP and bound UDP sockets of a network namespace, as `ss` prints them.
func listening(netns string) ([]string, error) {
	out, err := exec.Command("nsenter", "--net="+filepath.Join(netnsDir, netns), "ss", "-Htunlp").Output()
	if err != nil {
		return nil, fmt.Errorf("ss in %s: %w", netns, err)
	}
	var lines []string
	for line := range strings.Lines(string(out)) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	return lines, nil
}
