// Command goclient makes HTTP requests, each on a connection of its own unless told otherwise, until it has made as many
// as asked for or gets SIGTERM; then it prints a JSON summary.
//
// Its invariant: every request it began is counted once, as answered (by body) or as failed (by error). Start reading at
// main.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// summary is what is printed at the end.
type summary struct {
	Requests   int            `json:"requests"`
	Failures   int            `json:"failures"`
	Answers    map[string]int `json:"answers"`    // requests by the body of the answer
	Order      []string       `json:"order"`      // the first bodies, in order, at most maxOrder
	Errors     map[string]int `json:"errors"`     // failures by message
	SlowestMS  int64          `json:"slowestMs"`  // longest request
	LongestGap int64          `json:"longestGap"` // ms during which no request was answered
}

const maxOrder = 100

// load makes the requests and keeps the count.
type load struct {
	url    string
	client *http.Client
	left   atomic.Int64

	mu   sync.Mutex // guards what follows
	sum  summary
	last time.Time
}

func main() {
	url := flag.String("url", "", "what to get")
	count := flag.Int64("count", 1<<62, "requests to make")
	workers := flag.Int("workers", 1, "requests at the same time")
	keepalive := flag.Bool("keepalive", false, "use one connection per worker")
	timeout := flag.Duration("timeout", 2*time.Minute, "for one request")
	progress := flag.String("progress", "", "file to create after the first answer of each worker")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()

	transport := &http.Transport{DisableKeepAlives: !*keepalive, MaxIdleConnsPerHost: *workers, Proxy: nil}
	l := &load{url: *url, client: &http.Client{Transport: transport, Timeout: *timeout}, last: time.Now()}
	l.left.Store(*count)
	l.sum.Answers, l.sum.Errors = map[string]int{}, map[string]int{}
	var running, answered sync.WaitGroup
	for range *workers {
		answered.Add(1)
		running.Go(func() { l.work(ctx, answered.Done) })
	}
	go func() {
		answered.Wait()
		if *progress != "" {
			_ = os.WriteFile(*progress, nil, 0o644) // its absence is what the test sees
		}
	}()
	running.Wait()
	if err := json.NewEncoder(os.Stdout).Encode(&l.sum); err != nil {
		fmt.Fprintln(os.Stderr, "goclient:", err)
		os.Exit(1)
	}
	if l.sum.Failures > 0 {
		os.Exit(1)
	}
}

// work makes requests one after the other; first is called after the first one.
func (l *load) work(ctx context.Context, first func()) {
	for once := true; ctx.Err() == nil && l.left.Add(-1) >= 0; once = false {
		l.request()
		if once {
			first()
		}
	}
}

// request is not bound to the signal: what began is finished, and counted.
func (l *load) request() {
	began := time.Now()
	body, err := l.get()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sum.Requests++
	l.sum.SlowestMS = max(l.sum.SlowestMS, time.Since(began).Milliseconds())
	if err != nil {
		l.sum.Failures++
		l.sum.Errors[err.Error()]++
		return
	}
	l.sum.LongestGap = max(l.sum.LongestGap, time.Since(l.last).Milliseconds())
	l.last = time.Now()
	l.sum.Answers[body]++
	if len(l.sum.Order) < maxOrder {
		l.sum.Order = append(l.sum.Order, body)
	}
}

func (l *load) get() (string, error) {
	response, err := l.client.Get(l.url)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d", response.StatusCode)
	}
	return strings.TrimSpace(string(body)), err
}
