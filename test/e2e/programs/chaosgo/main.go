// Command chaosgo is the Go part of the chaos test: a server that answers lines, or clients that ask for one on a connection
// of their own each. chaos.c says how the programs of the test talk, and what they print.
//
// Its invariant: an asker's counter grows only by answers that are right. Start reading at main.
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// patience bounds one request; natively none takes a millisecond.
const patience = 100 * time.Second

func main() {
	listen := flag.String("listen", "", "serve on an address")
	churn := flag.String("churn", "", "port to listen on, over and over, until -stop exists; then to go on serving on")
	id := flag.String("id", "", "who serves")
	stop := flag.String("stop", "", "file whose existence ends the requests")
	workers := flag.Int("workers", 1, "requests at the same time")
	pause := flag.Duration("pause", 0, "between the requests of a worker")
	flag.Parse()
	var err error
	switch {
	case *listen != "":
		err = serve(*listen, *id)
	case *churn != "":
		err = churnOn(*churn, *id, *stop, *pause)
	default:
		askAll(flag.Args(), *workers, *pause, *stop)
	}
	if err != nil {
		fmt.Println("failed", err)
		os.Exit(1)
	}
}

func serve(address, id string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	return answerAll(l, id)
}

func answerAll(l net.Listener, id string) error {
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			if line, err := bufio.NewReader(conn).ReadString('\n'); err == nil {
				fmt.Fprintf(conn, "%s %s", id, line)
			}
		}()
	}
}

// churnOn opens and closes a listening socket again and again, and asks it once each time: over its own loopback, which
// needs nobody else to know of it.
func churnOn(port, id, stop string, pause time.Duration) error {
	counter := new(atomic.Int64)
	go tell([]*atomic.Int64{counter})
	for !exists(stop) {
		l, err := net.Listen("tcp", ":"+port)
		if err != nil {
			return err
		}
		ended := make(chan error, 1)
		go func() { ended <- answerAll(l, id) }()
		if err := ask("127.0.0.1:"+port, id, counter.Load()); err != nil {
			fmt.Println("failed", err)
		}
		time.Sleep(pause)
		_ = l.Close()
		if err := <-ended; err != nil {
			return err
		}
		counter.Add(1)
	}
	l, err := net.Listen("tcp", ":"+port)
	if err != nil {
		return err
	}
	fmt.Println("done", counter.Load())
	return answerAll(l, id)
}

// askAll asks the targets, HOST:PORT=ID, in turn until stop exists.
func askAll(targets []string, workers int, pause time.Duration, stop string) {
	counters := make([]*atomic.Int64, workers)
	for i := range counters {
		counters[i] = new(atomic.Int64)
	}
	go tell(counters)
	var running sync.WaitGroup
	for w, counter := range counters {
		running.Go(func() {
			for n := int64(w); !exists(stop); n++ {
				address, id, _ := strings.Cut(targets[n%int64(len(targets))], "=")
				if err := ask(address, id, n); err != nil {
					fmt.Println("failed", err)
				} else {
					counter.Add(1)
				}
				time.Sleep(pause)
			}
		})
	}
	running.Wait()
	total := int64(0)
	for _, c := range counters {
		total += c.Load()
	}
	fmt.Println("done", total)
}

func ask(address, id string, n int64) error {
	began := time.Now()
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return fmt.Errorf("after %v: %w", time.Since(began), err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(began.Add(patience))
	fmt.Fprintf(conn, "%d\n", n)
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if want := fmt.Sprintf("%s %d\n", id, n); err == nil && answer != want {
		err = fmt.Errorf("answer %q, want %q", answer, want)
	}
	if err != nil {
		return fmt.Errorf("%s after %v: %w", address, time.Since(began), err)
	}
	return nil
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

// tell prints the counters, twice a second.
func tell(counters []*atomic.Int64) {
	for {
		line := "at"
		for _, c := range counters {
			line += fmt.Sprintf(" %d", c.Load())
		}
		fmt.Println(line)
		time.Sleep(500 * time.Millisecond)
	}
}
