//go:build e2e

package e2e

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"appswitch.io/test/e2e/harness"
	"golang.org/x/sys/unix"
)

// The journal of calls in flight (services/nodeagent/launch/wire/journal.go), as whoever can write to it knows it.
const (
	journalHeader   = 4096
	journalSlotSize = 96
	journalSlots    = 4096
)

// TestHostileJournal scribbles into the journals of applications: of one at random while the agent works with it, of another with
// care when it is dead: calls that name a thread of another application. The next agent takes up nothing that is forged, says
// so, and serves everybody; the other application doesn't notice.
func TestHostileJournal(t *testing.T) {
	lab := harness.New(t)
	daemon := lab.StartDaemon()
	good := serve(lab, "1.1.1.1", "good", "")
	lab.Serving("1.1.1.1:80", 1)
	const block = `import socket
s = socket.create_server(("", 7000))
while True: s.accept()[0].close()`
	start := func(ip string) (journal *os.File) {
		t.Helper()
		others := journals(t)
		lab.Start("ax run --ip "+ip+" -- "+lab.Need("python3"), "-c", block)
		lab.Serving(ip+":7000", 1)
		lab.Eventually(runLimit, "the holder", func() (err error) {
			for name := range journals(t) {
				if !others[name] {
					journal, err = os.OpenFile(name, os.O_RDWR, 0)
					return err
				}
			}
			return errors.New("no new journal")
		})
		t.Cleanup(func() { journal.Close() })
		return journal
	}
	answers := func(when string) {
		t.Helper()
		equal(t, when, lab.Output("ax run -- curl -sS --max-time 20 http://1.1.1.1/"), "good")
	}

	noise := make([]byte, journalSlots*journalSlotSize)
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(noise)
	if _, err := start("1.1.1.2").WriteAt(noise, journalHeader); err != nil {
		t.Fatal(err)
	}
	lab.Run("ax run -- curl -sS --max-time 5 http://1.1.1.2:7000/") // its own business how that ends
	answers("with noise in another journal")

	journal := start("1.1.1.3")
	var call []byte // the accept in which it waits by now
	lab.Eventually(runLimit, "the application waits", func() error {
		slots := make([]byte, journalSlots*journalSlotSize)
		if _, err := journal.ReadAt(slots, journalHeader); err != nil {
			return err
		}
		for slot := range journalSlots {
			at := slots[slot*journalSlotSize:][:journalSlotSize]
			if nr := binary.NativeEndian.Uint32(at[16:]); binary.NativeEndian.Uint64(at) != 0 && nr == unix.SYS_ACCEPT4 {
				call = bytes.Clone(at)
				return nil
			}
		}
		return errors.New("no accept in its journal")
	})

	daemon.Kill()
	forged := bytes.Clone(noise)
	for slot := range 8 {
		at := forged[slot*journalSlotSize:][:journalSlotSize]
		copy(at, call)
		binary.NativeEndian.PutUint32(at[8:], uint32(good.PID()))
		// Its descriptors, and its memory: what an answer would be written over.
		binary.NativeEndian.PutUint32(at[16:], unix.SYS_GETSOCKNAME)
		for i, arg := range []uint64{uint64(slot), 0x400000, 0x400000} {
			binary.NativeEndian.PutUint64(at[32+8*i:], arg)
		}
	}
	if _, err := journal.WriteAt(forged, journalHeader); err != nil {
		t.Fatal(err)
	}
	daemon.Start()
	lab.Ready()
	lab.Serving("1.1.1.1:80", 1)
	answers("after calls in its name were forged")
	if !good.Running() {
		t.Error("the other application has ended")
	}
	contains(t, "log", daemon.Log(), "call in the journal is refused")
	if m := lab.Metrics("appswitch_nodeagent_journal_calls_refused_total"); strings.HasSuffix(m, " 0") || m == "" {
		t.Errorf("forged calls are not counted: %q", m)
	}
}

// journals are the files of the journals that holders have open.
func journals(t *testing.T) map[string]bool {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, link := range links {
		target, err := os.Readlink(link)
		if err != nil || !strings.HasPrefix(target, "/memfd:ax-journal") {
			continue
		}
		comm, err := os.ReadFile(fmt.Sprintf("/proc/%s/comm", strings.Split(link, "/")[2]))
		if err == nil && strings.HasPrefix(string(comm), "ax-holder") {
			found[link] = true
		}
	}
	return found
}
