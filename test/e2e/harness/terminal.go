package harness

import (
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// terminal is a pseudo-terminal; what the program writes to it is copied to a file.
type terminal struct {
	master, slave *os.File
	copied        chan struct{}
	once          sync.Once
}

func openTerminal(log string) (*terminal, error) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		master.Close()
		return nil, fmt.Errorf("unlock /dev/ptmx: %w", err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		master.Close()
		return nil, err
	}
	file, err := os.Create(log)
	if err != nil {
		master.Close()
		slave.Close()
		return nil, err
	}
	t := &terminal{master: master, slave: slave, copied: make(chan struct{})}
	go func() {
		defer close(t.copied)
		defer file.Close()
		_, _ = io.Copy(file, master) // EIO once the last slave is closed
	}()
	return t, nil
}

// close waits for the rest of the output and closes the terminal. The program has ended.
func (t *terminal) close() {
	t.once.Do(func() {
		<-t.copied
		t.master.Close()
	})
}
