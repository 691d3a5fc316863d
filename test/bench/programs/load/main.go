// Command load is the server and the client of the benchmarks: `load serve`, and `load connect|request|echo|message|udp|udpmsg|udpconn|stream|dns|dnsflood|await|lookup`.
//
// Its invariant: the clock runs around system calls alone. Clients use blocking sockets on threads of their own, so that
// neither Go's scheduler nor its poller is measured. Start reading at main; serve.go and message.go are the other side.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// result is what a client prints.
type result struct {
	P50       float64 `json:"p50"`       // µs
	P99       float64 `json:"p99"`       // µs
	PerSecond float64 `json:"perSecond"` // operations, or MB for stream
}

// operation is done over and over by one thread; it returns how long the part took that counts.
type operation func() (time.Duration, error)

func main() {
	if len(os.Args) < 2 {
		fail(fmt.Errorf("usage: load serve|connect|request|echo|message|udp|udpmsg|udpconn|stream|dns|dnsflood|listen|await|lookup [options]"))
	}
	fs := flag.NewFlagSet("load", flag.ExitOnError)
	address := fs.String("address", "", "ADDRESS:PORT to serve or to connect to")
	threads := fs.Int("threads", 1, "connect, request: how many at the same time")
	duration := fs.Duration("duration", 2*time.Second, "how long to measure")
	if err := fs.Parse(os.Args[2:]); err != nil {
		fail(err)
	}
	var err error
	switch os.Args[1] {
	case "serve":
		err = serve(*address)
	case "listen":
		err = answerLines(listenOn)
	case "await":
		err = answerLines(awaitConnect)
	case "lookup":
		err = answerLines(awaitName)
	default:
		err = measure(os.Args[1], *address, *threads, *duration)
	}
	if err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "load:", err)
	os.Exit(1)
}

// measure runs one kind of operation and prints the result.
func measure(kind, address string, threads int, duration time.Duration) error {
	to, err := sockaddr(address)
	if err != nil {
		return err
	}
	var r result
	if kind == "stream" {
		r, err = stream(to, duration)
	} else {
		r, err = repeat(kind, to, threads, duration)
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

// repeat lets each thread do its operation until the time is over.
func repeat(kind string, to unix.Sockaddr, threads int, duration time.Duration) (result, error) {
	var (
		mu    sync.Mutex // guards all and first
		all   []time.Duration
		first error
		wg    sync.WaitGroup
	)
	start := time.Now()
	for range threads {
		wg.Go(func() {
			runtime.LockOSThread()
			took, err := loop(kind, to, start.Add(duration))
			mu.Lock()
			defer mu.Unlock()
			all = append(all, took...)
			if first == nil {
				first = err
			}
		})
	}
	wg.Wait()
	if first != nil {
		return result{}, first
	}
	elapsed := time.Since(start)
	slices.Sort(all)
	done := float64(len(all))
	if kind == "dnsflood" {
		done *= dnsWindow
	}
	return result{P50: quantile(all, 0.50), P99: quantile(all, 0.99), PerSecond: done / elapsed.Seconds()}, nil
}

func loop(kind string, to unix.Sockaddr, until time.Time) ([]time.Duration, error) {
	var do operation
	switch kind {
	case "connect":
		do = func() (time.Duration, error) { return connectOnce(to) }
	case "request":
		do = func() (time.Duration, error) { return requestOnce(to) }
	case "echo":
		fd, err := connected(to)
		if err != nil {
			return nil, err
		}
		defer unix.Close(fd)
		do = echoOn(fd)
	case "message":
		fd, err := connected(to)
		if err != nil {
			return nil, err
		}
		defer unix.Close(fd)
		do = messageOn(fd)
	case "udp", "udpmsg", "udpconn":
		fd, err := datagramSocket(kind, to)
		if err != nil {
			return nil, err
		}
		defer unix.Close(fd)
		do = datagramOn(kind, fd, to)
	case "dns", "dnsflood":
		fd, err := dnsSocket(to)
		if err != nil {
			return nil, err
		}
		defer unix.Close(fd)
		if do = dnsOn(fd, 1); kind == "dnsflood" {
			do = dnsOn(fd, dnsWindow)
		}
	default:
		return nil, fmt.Errorf("no such operation: %s", kind)
	}
	took := make([]time.Duration, 0, 1<<16)
	for time.Now().Before(until) {
		t, err := do()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", kind, err)
		}
		took = append(took, t)
	}
	return took, nil
}

// connectOnce measures connect(2) alone.
func connectOnce(to unix.Sockaddr) (time.Duration, error) {
	fd, err := socket()
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	start := time.Now()
	err = unix.Connect(fd, to)
	return time.Since(start), err
}

// requestOnce measures all of socket, connect, one byte there and one back, close.
func requestOnce(to unix.Sockaddr) (time.Duration, error) {
	start := time.Now()
	fd, err := connected(to)
	if err != nil {
		return 0, err
	}
	_, err = echoOn(fd)()
	unix.Close(fd)
	return time.Since(start), err
}

// echoOn returns an operation that measures one byte there and back.
func echoOn(fd int) operation {
	buf := []byte{'e'}
	return func() (time.Duration, error) {
		start := time.Now()
		if _, err := unix.Write(fd, buf); err != nil {
			return 0, err
		}
		n, err := unix.Read(fd, buf)
		if err == nil && n != 1 {
			err = fmt.Errorf("the server closed the connection")
		}
		return time.Since(start), err
	}
}

// stream measures how fast bytes go one way.
func stream(to unix.Sockaddr, duration time.Duration) (result, error) {
	fd, err := connected(to)
	if err != nil {
		return result{}, err
	}
	defer unix.Close(fd)
	chunk := make([]byte, 128<<10)
	chunk[0] = 'd' // the server discards what begins so
	total, start := 0, time.Now()
	for time.Since(start) < duration {
		n, err := unix.Write(fd, chunk)
		if err != nil {
			return result{}, err
		}
		total += n
	}
	return result{PerSecond: float64(total) / 1e6 / time.Since(start).Seconds()}, nil
}

func connected(to unix.Sockaddr) (int, error) {
	fd, err := socket()
	if err != nil {
		return -1, err
	}
	if err := unix.Connect(fd, to); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// socket returns a TCP socket that leaves no TIME_WAIT behind: ten thousand connects a second would run out of ports.
func socket() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("set SO_LINGER: %w", err)
	}
	return fd, nil
}

func sockaddr(address string) (unix.Sockaddr, error) {
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, fmt.Errorf("--address: %w", err)
	}
	return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}, nil
}

func quantile(sorted []time.Duration, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return float64(sorted[int(q*float64(len(sorted)-1))].Nanoseconds()) / 1e3
}
