package main

import (
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// serveDatagrams sends each datagram back, by recvmsg and sendmsg.
func serveDatagrams(address string) error {
	to, err := sockaddr(address)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Bind(fd, to); err != nil {
		return err
	}
	go func() {
		runtime.LockOSThread()
		buf := make([]byte, 64)
		for {
			n, _, _, from, err := unix.Recvmsg(fd, buf, nil, 0)
			if err == nil {
				err = unix.Sendmsg(fd, buf[:n], nil, from, 0)
			}
			if err != nil {
				fail(err)
			}
		}
	}()
	return nil
}

// messageOn returns an operation that measures one byte there and back by sendmsg and recvmsg.
func messageOn(fd int) operation {
	buf := []byte{'e'}
	return func() (time.Duration, error) {
		start := time.Now()
		if err := unix.Sendmsg(fd, buf, nil, nil, 0); err != nil {
			return 0, err
		}
		n, _, _, _, err := unix.Recvmsg(fd, buf, nil, 0)
		if err == nil && n != 1 {
			err = fmt.Errorf("the server closed the connection")
		}
		return time.Since(start), err
	}
}

// datagramOn returns an operation that measures a datagram there and back: by sendto and recvfrom, by sendmsg and recvmsg,
// or, if the socket is connected, by send and recv.
func datagramOn(kind string, fd int, to unix.Sockaddr) operation {
	buf := []byte{'e'}
	return func() (time.Duration, error) {
		start := time.Now()
		var err error
		switch kind {
		case "udp":
			if err = unix.Sendto(fd, buf, 0, to); err == nil {
				_, _, err = unix.Recvfrom(fd, buf, 0)
			}
		case "udpmsg":
			if err = unix.Sendmsg(fd, buf, nil, to, 0); err == nil {
				_, _, _, _, err = unix.Recvmsg(fd, buf, nil, 0)
			}
		default:
			if _, err = unix.Write(fd, buf); err == nil {
				_, err = unix.Read(fd, buf)
			}
		}
		return time.Since(start), err
	}
}

// datagramSocket makes a socket for datagramOn. A datagram that is lost ends the measurement instead of stopping it.
func datagramSocket(kind string, to unix.Sockaddr) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5})
	if err == nil && kind == "udpconn" {
		err = unix.Connect(fd, to)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
