package procfs

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// rootEnv makes the test binary a process with another root directory.
const rootEnv = "PROCFS_TEST_ROOT"

func TestMain(m *testing.M) {
	if root := os.Getenv(rootEnv); root != "" {
		os.Exit(inRoot(root))
	}
	goleak.VerifyTestMain(m)
}

// inRoot changes the root directory and stays until its input ends.
func inRoot(root string) int {
	if err := unix.Chroot(root); err != nil {
		return 1
	}
	if _, err := os.Stdout.WriteString("ready\n"); err != nil {
		return 1
	}
	_, _ = bufio.NewReader(os.Stdin).ReadByte()
	return 0
}

// withRoot starts a process whose root directory is root.
func withRoot(t *testing.T, root string) (pid int) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), rootEnv+"="+root)
	if os.Getuid() != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		}
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("process with root %s: %q, %v", root, line, err)
	}
	return cmd.Process.Pid
}

func TestNameservers(t *testing.T) {
	root := t.TempDir()
	pid := withRoot(t, root)
	conf := filepath.Join(root, "etc/resolv.conf")
	write := func(path, content string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	link := func(target string) {
		t.Helper()
		if err := os.Symlink(target, conf); err != nil {
			t.Fatal(err)
		}
	}
	const one = "nameserver 10.9.8.7\n"
	for _, c := range []struct {
		name    string
		prepare func()
		want    string
		says    string
	}{
		{"regular file", func() { write(conf, one) }, "10.9.8.7", ""},
		{"absolute link within the root", func() { write(filepath.Join(root, "run/r"), one); link("/run/r") }, "10.9.8.7", ""},
		{"link that climbs stays in the root", func() { write(filepath.Join(root, "r"), one); link("../../../../r") }, "10.9.8.7", ""},
		{"link to the machine's own file", func() { link(os.Args[0]) }, "", "no such file"},
		{"no file", func() {}, "", "no such file"},
		{"directory", func() { write(conf+"/x", "") }, "", "not a regular file"},
		{"fifo", func() {
			if err := unix.Mkfifo(conf, 0o600); err != nil {
				t.Fatal(err)
			}
		}, "", "not a regular file"},
		{"loop", func() { link("resolv.conf") }, "", "symbolic links"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := os.RemoveAll(filepath.Join(root, "etc")); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
				t.Fatal(err)
			}
			c.prepare()
			got, err := Nameservers(t.Context(), pid)
			if c.says != "" {
				if err == nil || !strings.Contains(err.Error(), c.says) {
					t.Errorf("%v, %v; want an error that says %q", got, err, c.says)
				}
				return
			}
			if err != nil || !slices.Equal(got, []netip.Addr{netip.MustParseAddr(c.want)}) {
				t.Errorf("%v, %v; want %s", got, err, c.want)
			}
		})
	}
	if _, err := Nameservers(t.Context(), 1<<30); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("name servers of no process: %v", err)
	}
}

func TestLongFile(t *testing.T) {
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	content := "nameserver 1.1.1.1\n" + strings.Repeat("#", MaxResolvConf) + "\nnameserver 2.2.2.2\n"
	if err := os.WriteFile(filepath.Join(root, "etc/resolv.conf"), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := Nameservers(t.Context(), withRoot(t, root))
	if err != nil || !slices.Equal(got, []netip.Addr{netip.MustParseAddr("1.1.1.1")}) {
		t.Errorf("%v, %v; want 1.1.1.1 alone", got, err)
	}
}

func TestReadsThatHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		hang := func() ([]byte, error) {
			<-release
			return nil, nil
		}
		quick := func() ([]byte, error) { return []byte("x"), nil }
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for range MaxReads {
			if _, err := bounded(ctx, hang); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("a read that hangs: %v", err)
			}
		}
		if _, err := bounded(t.Context(), quick); !errors.Is(err, ErrBusy) {
			t.Errorf("read %d: %v", MaxReads+1, err)
		}
		close(release)
		synctest.Wait()
		if b, err := bounded(t.Context(), quick); string(b) != "x" || err != nil {
			t.Errorf("after the others ended: %q, %v", b, err)
		}
	})
}

func TestParseResolvConf(t *testing.T) {
	for _, c := range []struct{ content, want string }{
		{"", ""},
		{"search a b\noptions ndots:5\n", ""},
		{"nameserver 1.1.1.1", "1.1.1.1"},
		{"# nameserver 1.1.1.1\n;nameserver 2.2.2.2\n  nameserver\t3.3.3.3   # mine\r\n", "3.3.3.3"},
		{"nameserver ::1\nnameserver fe80::1%eth0\nnameserver ::ffff:10.0.0.1\n", "::1 fe80::1 10.0.0.1"},
		{"nameserver\nnameserver x\nnameserver 1.1.1.1:53\nnameservers 4.4.4.4\nnameserver 5.5.5.5\n", "5.5.5.5"},
		{strings.Repeat("nameserver 1.1.1.1\n", MaxNameservers+1), strings.TrimSpace(strings.Repeat("1.1.1.1 ", MaxNameservers))},
	} {
		var got []string
		for _, a := range parseResolvConf([]byte(c.content)) {
			got = append(got, a.String())
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%q: %s; want %s", c.content, s, c.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("nameserver 1.1.1.1\nnameserver ::1%x\n"))
	f.Add([]byte("Tgid:\t1\nUid:\t1\t2\t3\t4\nGid:\t1\t2\t3\t4\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		servers := parseResolvConf(b)
		if len(servers) > MaxNameservers {
			t.Errorf("%d name servers", len(servers))
		}
		for _, a := range servers {
			if !a.IsValid() || a.Is4In6() || a.Zone() != "" {
				t.Errorf("name server %s", a)
			}
		}
		if task, err := parseStatus(b); err == nil && !bytes.Contains(b, []byte("Tgid")) {
			t.Errorf("status %+v", task)
		}
	})
}
