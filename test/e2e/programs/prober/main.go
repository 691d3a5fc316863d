// Command prober serves on some ports and connects where it is told: one application of a test that has many.
//
// Whoever connects is told its id, one line. Each line of standard input is a destination, HOST:PORT, and is answered on
// standard output with a line of JSON: who answered and at which address, or the errno. Its invariant: one line out for each
// line in, in order. Start reading at probe.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// patience bounds a connect and its answer.
const patience = 20 * time.Second

// result is what became of a connect.
type result struct {
	Dest   string `json:"dest"`
	Answer string `json:"answer,omitempty"` // the id of who answered
	Peer   string `json:"peer,omitempty"`   // what getpeername shows
	Errno  string `json:"errno,omitempty"`  // of the connect
	Error  string `json:"error,omitempty"`  // anything else
}

func main() {
	id := flag.String("id", "prober", "what those who connect are told")
	listen := flag.String("listen", "", "ports to listen on, separated by commas")
	flag.Parse()
	for port := range strings.SplitSeq(*listen, ",") {
		if port == "" {
			continue
		}
		l, err := net.Listen("tcp", ":"+port)
		if err != nil {
			fmt.Fprintln(os.Stderr, "prober:", err)
			os.Exit(1)
		}
		go serve(l, *id)
	}
	out := json.NewEncoder(os.Stdout)
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		if err := out.Encode(probe(lines.Text())); err != nil {
			fmt.Fprintln(os.Stderr, "prober:", err)
			os.Exit(1)
		}
	}
	select {} // serves until it is ended
}

func serve(l net.Listener, id string) {
	for {
		conn, err := l.Accept()
		if err != nil {
			fmt.Fprintln(os.Stderr, "prober:", err)
			os.Exit(1)
		}
		go func() {
			defer conn.Close()
			_, _ = fmt.Fprintln(conn, id) // the client may have left
		}()
	}
}

// probe connects once to the first address of a destination: a dialer would try further ones.
func probe(dest string) result {
	r := result{Dest: dest}
	address, err := net.ResolveTCPAddr("tcp", dest)
	if err != nil {
		r.Error = err.Error()
		return r
	}
	conn, err := (&net.Dialer{Timeout: patience}).Dial("tcp", address.String())
	if err != nil {
		if errno := syscall.Errno(0); errors.As(err, &errno) {
			r.Errno = unix.ErrnoName(errno)
		} else {
			r.Error = err.Error()
		}
		return r
	}
	defer conn.Close()
	r.Peer = conn.RemoteAddr().String()
	answer, err := readLine(conn)
	if r.Answer = answer; err != nil {
		r.Error = err.Error()
	}
	return r
}

func readLine(conn net.Conn) (string, error) {
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(io.LimitReader(conn, 256)).ReadString('\n')
	return strings.TrimSpace(line), err
}
