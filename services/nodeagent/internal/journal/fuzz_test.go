package journal

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzLoad opens files of any content, with and without a good header in front.
func FuzzLoad(f *testing.F) {
	path := filepath.Join(f.TempDir(), "seed")
	j, _ := open(f, path, testSize, 10)
	put(f, j, "one")
	put(f, j, strings.Repeat("2", testSize))
	j.Close()
	seed, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	boot, err := os.ReadFile(bootIDPath)
	if err != nil {
		f.Fatal(err)
	}
	good := append(header(testSize, strings.TrimSpace(string(boot))), make([]byte, headerSize-headerLength)...)
	f.Add(seed[:headerSize+3*j.stride], false)
	f.Add(seed[headerSize:headerSize+3*j.stride], true)
	f.Add([]byte{}, false)
	f.Add([]byte{}, true)
	f.Add(seed[headerSize:headerSize+j.stride+1], true)
	f.Fuzz(func(t *testing.T, content []byte, withHeader bool) {
		if withHeader {
			content = append(good[:headerSize:headerSize], content...)
		}
		path := filepath.Join(memoryDir(t), "j")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		j, _ := open(t, path, testSize, 10)
		before := load(j)
		for slot, data := range before {
			if slot < 0 || slot >= 10 || len(data) > testSize {
				t.Fatalf("slot %d has %d bytes", slot, len(data))
			}
		}
		if len(before) != j.Used() {
			t.Fatalf("%d records, %d in use", len(before), j.Used())
		}
		if len(before) == 10 {
			return
		}
		slot := put(t, j, "new")
		if _, taken := before[slot]; taken {
			t.Fatalf("slot %d is handed out twice", slot)
		}
		before[slot] = "new"
		j, logged := reopen(t, j)
		check(t, j, before)
		if logged.Len() > 0 {
			t.Errorf("log: %s", logged)
		}
	})
}

// memoryDir is a directory in memory where there is one: on a disk, fuzzing waits for the disk.
func memoryDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "journal")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
