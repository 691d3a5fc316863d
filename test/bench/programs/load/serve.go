package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// serve answers connections: those that begin with 'd' are read to their end, all others get back what they send; and so do
// datagrams to the same port.
func serve(address string) error {
	l, err := net.Listen("tcp4", address)
	if err != nil {
		return err
	}
	if err := serveDatagrams(address); err != nil {
		return err
	}
	fmt.Println("listening")
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go answer(conn)
	}
}

func answer(conn net.Conn) {
	defer conn.Close()
	buf := make([]byte, 256<<10)
	n, err := conn.Read(buf)
	if err != nil {
		return // connected and closed again
	}
	if buf[0] == 'd' {
		_, _ = io.CopyBuffer(struct{ io.Writer }{io.Discard}, conn, buf) // until the client has enough
		return
	}
	for err == nil {
		if _, err = conn.Write(buf[:n]); err == nil {
			n, err = conn.Read(buf)
		}
	}
}

// answerLines reads one argument per line and prints, for each, the time in ns at which do was through.
func answerLines(do func(argument string) error) error {
	in := bufio.NewScanner(os.Stdin)
	fmt.Println("ready")
	for in.Scan() {
		argument := strings.TrimSpace(in.Text())
		if err := do(argument); err != nil {
			return fmt.Errorf("%s: %w", argument, err)
		}
		fmt.Println(argument, time.Now().UnixNano())
	}
	return in.Err()
}

// listenOn begins to listen, and goes on for as long as the process lives.
func listenOn(address string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	to, err := sockaddr(address)
	if err != nil {
		return err
	}
	if err := unix.Bind(fd, to); err != nil {
		return err
	}
	return unix.Listen(fd, 16)
}

// awaitConnect connects until it is let in.
func awaitConnect(address string) error {
	to, err := sockaddr(address)
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
		fd, err := connected(to)
		if err == nil {
			return unix.Close(fd)
		}
		if time.Now().After(deadline) {
			return err
		}
	}
}

// awaitName looks a name up until it is there.
func awaitName(name string) error {
	for deadline := time.Now().Add(20 * time.Second); ; {
		_, err := net.DefaultResolver.LookupIP(context.Background(), "ip4", name)
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}
