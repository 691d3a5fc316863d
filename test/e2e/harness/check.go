package harness

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Eventually calls f until it returns nil, which must happen in time. The last error is shown if it does not.
func (l *Lab) Eventually(limit time.Duration, what string, f func() error) {
	l.t.Helper()
	deadline := time.Now().Add(limit)
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			l.t.Fatalf("%s: not within %v: %v", what, limit, err)
		}
		time.Sleep(pause)
	}
}

// Reply is the answer to an HTTP request.
type Reply struct {
	Status int
	Body   string
	SHA256 string // of the body, in hexadecimal
}

// Get makes an HTTP request from this machine, outside AppSwitch. The address must be numeric.
func (l *Lab) Get(url string) (Reply, error) {
	transport := &http.Transport{DialContext: dialIn(l.netns), DisableKeepAlives: true}
	client := http.Client{Transport: transport, Timeout: 10 * time.Second}
	response, err := client.Get(url)
	if err != nil {
		return Reply{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	sum := sha256.Sum256(body)
	return Reply{Status: response.StatusCode, Body: string(body), SHA256: hex.EncodeToString(sum[:])}, err
}

// Dial connects from this machine, outside AppSwitch. The address must be numeric.
func (l *Lab) Dial(address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return dialIn(l.netns)(ctx, "tcp", address)
}

// Address is an IP address with a port, as the REST interface writes it.
type Address struct {
	IP   string `json:"ip"`
	Port int    `json:"port"`
}

func (a Address) String() string { return net.JoinHostPort(a.IP, strconv.Itoa(a.Port)) }

// Server is a row of `ax get servers`.
type Server struct {
	ID             string            `json:"id"`
	AppID          string            `json:"appId"`
	Node           string            `json:"node"`
	Cluster        string            `json:"cluster"`
	Protocol       string            `json:"protocol"`
	ServiceAddress Address           `json:"serviceAddress"`
	HostAddress    Address           `json:"hostAddress"`
	Labels         map[string]string `json:"labels"`
	Name           string            `json:"name"`
}

// App is a row of `ax get apps`.
type App struct {
	ID      string            `json:"id"`
	Name    string            `json:"name"`
	Node    string            `json:"node"`
	Cluster string            `json:"cluster"`
	IP      string            `json:"ip"`
	Driver  string            `json:"driver"`
	Labels  map[string]string `json:"labels"`
	PID     int               `json:"pid"`
}

// Socket is a row of `ax get sockets`.
type Socket struct {
	ID          string  `json:"id"`
	Node        string  `json:"node"`
	AppID       string  `json:"appId"`
	Protocol    string  `json:"protocol"`
	BindAddress Address `json:"bindAddress"`
	HostAddress Address `json:"hostAddress"`
	Backlog     int     `json:"backlog"`
}

// Servers returns `ax get servers`.
func (l *Lab) Servers() ([]Server, error) { return rows[Server](l, "servers") }

// Apps returns `ax get apps`.
func (l *Lab) Apps() ([]App, error) { return rows[App](l, "apps") }

// Sockets returns `ax get sockets`.
func (l *Lab) Sockets() ([]Socket, error) { return rows[Socket](l, "sockets") }

// rows runs `ax get KIND -o json`, which prints a list, or an object that holds one.
func rows[T any](l *Lab, kind string) ([]T, error) {
	l.t.Helper()
	r := l.Run("ax get " + kind + " -o json")
	if r.Code != 0 {
		return nil, fmt.Errorf("ax get %s -o json: exit status %d: %s", kind, r.Code, r.Stderr)
	}
	text := []byte(strings.TrimSpace(r.Stdout))
	var list []T
	if json.Unmarshal(text, &list) == nil {
		return list, nil
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(text, &object); err != nil {
		return nil, fmt.Errorf("ax get %s -o json: %w: %s", kind, err, text)
	}
	for _, value := range object {
		if value = json.RawMessage(strings.TrimSpace(string(value))); len(value) > 0 && value[0] == '[' {
			return list, json.Unmarshal(value, &list)
		}
	}
	return nil, nil // an object without a list: there is none
}

// Serving waits until as many servers as given are in the service table under an address, and returns them.
func (l *Lab) Serving(address string, count int) []Server {
	l.t.Helper()
	var found []Server
	l.Eventually(30*time.Second, fmt.Sprintf("%d servers at %s", count, address), func() error {
		all, err := l.Servers()
		if err != nil {
			return err
		}
		found = nil
		for _, s := range all {
			if s.ServiceAddress.String() == address {
				found = append(found, s)
			}
		}
		if len(found) != count {
			return fmt.Errorf("there are %d; the service table: %v", len(found), all)
		}
		return nil
	})
	return found
}

// Quiet waits until nothing is left of any application: no row in a table, no host port, no holder process.
func (l *Lab) Quiet() {
	l.t.Helper()
	l.Eventually(quietWait, "nothing left of the applications", func() error {
		apps, err := l.Apps()
		servers, err2 := l.Servers()
		sockets, err3 := l.Sockets()
		if err := errors.Join(err, err2, err3); err != nil {
			return err
		}
		if len(apps)+len(servers)+len(sockets) > 0 {
			return fmt.Errorf("apps %v, servers %v, sockets %v", apps, servers, sockets)
		}
		for _, p := range processes(l.name + "/") {
			if !l.isDaemon(p.pid) {
				return fmt.Errorf("process %s", p)
			}
		}
		sockets2, err := listening(l.name)
		for _, s := range sockets2 {
			if port := localPort(s); port >= firstAppPort && port <= lastAppPort {
				return fmt.Errorf("host port %s", s)
			}
		}
		return err
	})
}

// HostPorts returns the host ports of applications on which something listens over TCP, as the kernel says.
func (l *Lab) HostPorts() ([]int, error) {
	sockets, err := listening(l.name)
	var out []int
	for _, s := range sockets {
		if port := localPort(s); strings.HasPrefix(s, "tcp") && port >= firstAppPort && port <= lastAppPort {
			out = append(out, port)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), err
}

// localPort reads the local port out of a line of `ss -Htun`: netid state recv-q send-q local peer.
func localPort(line string) int {
	fields := strings.Fields(line)
	if len(fields) < 5 {
		return 0
	}
	port, err := strconv.Atoi(fields[4][strings.LastIndexByte(fields[4], ':')+1:])
	if err != nil {
		return 0
	}
	return port
}
