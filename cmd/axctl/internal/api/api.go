// Package api is the client of the daemon's REST interface.
//
// Invariant: every call ends, within the client's timeout and with at most [MaxResponse] bytes read, and every error
// says what to do about it. Replies are kept as they came beside the decoded message, so that fields of a newer
// daemon are neither an error nor lost. Start reading at [Client].
package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

const (
	// DefaultServer is where the daemon of this machine answers.
	DefaultServer = "http://127.0.0.1:6664"
	// DefaultTimeout bounds one call.
	DefaultTimeout = 10 * time.Second
	// MaxResponse bounds the body of one reply, in bytes.
	MaxResponse = 64 << 20
)

// Client calls one daemon.
type Client struct {
	base *url.URL
	http *http.Client
}

// New returns a client of the daemon at server, such as http://127.0.0.1:6664. The scheme may be left out.
func New(server string, timeout time.Duration) (*Client, error) {
	if !strings.Contains(server, "://") {
		server = "http://" + server
	}
	u, err := url.Parse(server)
	if err != nil {
		return nil, fmt.Errorf("server %q: %w", server, err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("server %q: want a URL such as %s", server, DefaultServer)
	}
	if timeout <= 0 {
		return nil, fmt.Errorf("timeout %s: want more than 0", timeout)
	}
	// A command makes a few calls and exits: connections that are kept would only have to be closed.
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true}
	return &Client{base: u, http: &http.Client{Transport: transport, Timeout: timeout}}, nil
}

// UseTLS sets how a daemon at an https URL is spoken to; without it the machine's own certificate authorities count. It
// is called before any other method.
func (c *Client) UseTLS(cfg *tls.Config) {
	if t, ok := c.http.Transport.(*http.Transport); ok {
		t.TLSClientConfig = cfg
	}
}

// Server returns the URL of the daemon.
func (c *Client) Server() string { return c.base.String() }

// RemoteHost returns the host of the daemon, or nothing if it is on this machine's loopback.
func (c *Client) RemoteHost() string {
	host := c.base.Hostname()
	if ip, err := netip.ParseAddr(host); host == "localhost" || err == nil && ip.Unmap().IsLoopback() {
		return ""
	}
	return host
}

// StatusError is a refusal by the daemon: a google.rpc.Status.
type StatusError struct {
	Code    codes.Code
	Message string
}

func (e *StatusError) Error() string { return e.Message }

// Get reads path into reply, which may be nil, and returns the body as well.
func (c *Client) Get(ctx context.Context, path string, query url.Values, reply proto.Message) ([]byte, error) {
	return c.do(ctx, http.MethodGet, path, query, nil, reply)
}

// Post sends a message to path and reads the answer into reply.
func (c *Client) Post(ctx context.Context, path string, request, reply proto.Message) error {
	body, err := protojson.Marshal(request)
	if err != nil {
		return fmt.Errorf("encode the request: %w", err)
	}
	_, err = c.do(ctx, http.MethodPost, path, nil, body, reply)
	return err
}

// Put makes what is at path what a message says, and reads the answer into reply.
func (c *Client) Put(ctx context.Context, path string, query url.Values, request, reply proto.Message) error {
	body, err := protojson.Marshal(request)
	if err != nil {
		return fmt.Errorf("encode the request: %w", err)
	}
	_, err = c.do(ctx, http.MethodPut, path, query, body, reply)
	return err
}

// Delete removes what is at path.
func (c *Client) Delete(ctx context.Context, path string, reply proto.Message) error {
	_, err := c.do(ctx, http.MethodDelete, path, nil, nil, reply)
	return err
}

func (c *Client) do(ctx context.Context, method, path string, query url.Values, body []byte, reply proto.Message) ([]byte, error) {
	u := strings.TrimSuffix(c.base.String(), "/") + path
	if len(query) > 0 {
		u += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, u, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("request %s: %w", path, err)
	}
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, MaxResponse+1))
	switch {
	case err != nil:
		return nil, c.unreachable(err)
	case len(data) > MaxResponse:
		return nil, fmt.Errorf("%s answered %s with more than %d MiB", c.Server(), path, MaxResponse>>20)
	case resp.StatusCode != http.StatusOK:
		return nil, c.refusal(resp, data)
	}
	if reply != nil {
		if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(data, reply); err != nil {
			return nil, c.foreign(path, err.Error())
		}
	}
	return data, nil
}

// unreachable says what to do about a call that brought no answer.
func (c *Client) unreachable(err error) error {
	var timeout net.Error
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("the daemon is not running at %s: start it with `sudo ax daemon`, or name another with --server", c.Server())
	case errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("the daemon at %s did not answer within %s", c.Server(), c.http.Timeout)
	}
	var untrusted *tls.CertificateVerificationError
	if errors.As(err, &untrusted) {
		return fmt.Errorf("the daemon at %s can't be trusted: %w: name its CA with --tls-ca-cert, and call it by a name or address of its certificate", c.Server(), untrusted.Err)
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return fmt.Errorf("reach the daemon at %s: %w", c.Server(), err)
}

// refusal reads the google.rpc.Status of a reply that is not OK.
func (c *Client) refusal(resp *http.Response, data []byte) error {
	var status struct {
		Code    *codes.Code     `json:"code"`
		Message string          `json:"message"`
		Details json.RawMessage `json:"details"`
	}
	if bytes.Contains(data, []byte("HTTP request to an HTTPS server")) {
		return fmt.Errorf("the daemon at %s speaks TLS: call it as https://%s, with --tls-ca-cert, --tls-cert and --tls-key", c.Server(), c.base.Host)
	}
	if err := json.Unmarshal(data, &status); err != nil || status.Code == nil || status.Message == "" {
		return c.foreign(resp.Request.URL.Path, resp.Status)
	}
	return &StatusError{Code: *status.Code, Message: status.Message}
}

func (c *Client) foreign(path, what string) error {
	return fmt.Errorf("%s does not answer %s as AppSwitch does (%s): is it the --rest-port of a daemon?", c.Server(), path, what)
}
