// Package connectivity tests a running AppSwitch from end to end: it starts servers and clients under `ax run` and
// compares what happens with what should.
//
// The servers and clients are this very binary, so that the test works on any machine. Invariant: whatever happens,
// nothing that was started outlives [Run]: a server ends when its standard input does, also if the test is killed.
// Start reading at [Run]; what the programs do is in this file.
package connectivity

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"sync"
	"syscall"
	"time"
)

// Limits of the programs.
const (
	MaxBytes  = 64 << 20 // of one request
	maxPeers  = 64       // connections that a server has at once; more wait in the kernel
	maxAnswer = 4 << 10
	serveFor  = 30 * time.Second // one connection
)

// Answer is what a server says to a request.
type Answer struct {
	Tag    string `json:"tag"`    // which server it is
	Client string `json:"client"` // the client's address, as the server sees it
	SHA256 string `json:"sha256"` // of what it received
}

// Outcome is how a client's request ended.
type Outcome struct {
	Answer
	Local string `json:"local"` // the client's own address and the server's, as the client sees them
	Peer  string `json:"peer"`
	Sent  string `json:"sent"`  // SHA-256 of what it sent
	Errno string `json:"errno"` // name of the errno, if there was one
	Error string `json:"error"` // empty: the answer came

	Asked string   `json:"asked,omitempty"` // of a lookup: the nameserver
	Addrs []string `json:"addrs,omitempty"` // and what it said
}

// Serve answers requests at a port under tag until in ends, and says on out when it listens.
func Serve(ctx context.Context, port uint16, tag string, in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan struct{})
	go func() { // ends with in; the process ends after it
		defer close(ended)
		_, _ = io.Copy(io.Discard, in)
		cancel()
	}()
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", fmt.Sprintf(":%d", port))
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	if _, err := fmt.Fprintln(out, "listening"); err != nil {
		return err
	}
	var peers sync.WaitGroup
	defer peers.Wait()
	slots := make(chan struct{}, maxPeers)
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		slots <- struct{}{}
		peers.Go(func() {
			defer func() { <-slots }()
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(serveFor))
			answer(conn, tag)
		})
	}
}

// answer reads one request: its length in 8 bytes, big endian, then so many bytes.
func answer(conn net.Conn, tag string) {
	var length uint64
	if binary.Read(conn, binary.BigEndian, &length) != nil || length > MaxBytes {
		return
	}
	sum := sha256.New()
	if _, err := io.CopyN(sum, conn, int64(length)); err != nil {
		return
	}
	_ = json.NewEncoder(conn).Encode(Answer{Tag: tag, Client: conn.RemoteAddr().String(), SHA256: hex.EncodeToString(sum.Sum(nil))})
}

// Call makes one request of so many bytes, within a time, and tells how it ended.
func Call(ctx context.Context, to string, size int, timeout time.Duration) Outcome {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var o Outcome
	if err := call(ctx, to, size, &o); err != nil {
		o.Error = err.Error()
		if errno := syscall.Errno(0); errors.As(err, &errno) {
			o.Errno = errnoName(errno)
		}
	}
	return o
}

func call(ctx context.Context, to string, size int, o *Outcome) error {
	if size < 0 || size > MaxBytes {
		return fmt.Errorf("%d bytes: too many", size)
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", to)
	if err != nil {
		return err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	o.Local, o.Peer = conn.LocalAddr().String(), conn.RemoteAddr().String()
	data := pattern(size)
	sum := sha256.Sum256(data)
	o.Sent = hex.EncodeToString(sum[:])
	if _, err := conn.Write(append(binary.BigEndian.AppendUint64(nil, uint64(size)), data...)); err != nil {
		return err
	}
	line, err := bufio.NewReaderSize(io.LimitReader(conn, maxAnswer), maxAnswer).ReadBytes('}')
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if err := json.Unmarshal(line, &o.Answer); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	return nil
}

// pattern returns bytes of which no part is like another for long.
func pattern(size int) []byte {
	data := make([]byte, size)
	state := uint64(size)*2 + 1
	for i := range data {
		state = state*6364136223846793005 + 1442695040888963407
		data[i] = byte(state >> (64 - 8) & math.MaxUint8)
	}
	return data
}
