package main

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	dnsNames  = 10_000 // n0.appswitch.local and so on, as programs/fill makes them
	dnsWindow = 32     // queries that are under way at a time, where the rate is measured
	dnsWait   = 5      // seconds until an answer counts as lost
)

// dnsOn returns an operation that asks for addresses of random names over UDP, as many at a time as window says, and
// measures until all are answered.
func dnsOn(fd, window int) operation {
	query, reply := make([]byte, 0, 512), make([]byte, 1500)
	return func() (time.Duration, error) {
		start := time.Now()
		for i := range window {
			query = appendQuery(query[:0], uint16(i), fmt.Sprintf("n%d.appswitch.local", rand.IntN(dnsNames)))
			if _, err := unix.Write(fd, query); err != nil {
				return 0, err
			}
		}
		for range window {
			n, err := unix.Read(fd, reply)
			for err == unix.EINTR { // a socket with a timeout is not read on after Go's own signals
				n, err = unix.Read(fd, reply)
			}
			if err != nil {
				return 0, fmt.Errorf("no answer: %w", err)
			}
			// NOERROR, and one record in the answer.
			if n < 12 || reply[3]&0xF != 0 || binary.BigEndian.Uint16(reply[6:]) != 1 {
				return 0, fmt.Errorf("unexpected answer % x", reply[:min(n, 64)])
			}
		}
		return time.Since(start), nil
	}
}

// appendQuery appends a question for the IPv4 addresses of a name.
func appendQuery(b []byte, id uint16, name string) []byte {
	b = binary.BigEndian.AppendUint16(b, id)
	b = append(b, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0) // recursion desired, one question
	for label := range strings.SplitSeq(name, ".") {
		b = append(append(b, byte(len(label))), label...)
	}
	return append(b, 0, 0, 1, 0, 1)
}

// dnsSocket returns a blocking UDP socket towards a server.
func dnsSocket(to unix.Sockaddr) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: dnsWait}); err == nil {
		err = unix.Connect(fd, to)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
