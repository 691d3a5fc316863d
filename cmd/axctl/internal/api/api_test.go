package api

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func serve(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	c, err := New(s.URL, 300*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestGetToleratesUnknownFields(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"nodes":[{"name":"n1","colour":"blue"}],"fromTheFuture":{"a":[1]}}`))
	})
	var reply registryv1.ListNodesResponse
	body, err := c.Get(context.Background(), "/v1/nodes", nil, &reply)
	if err != nil || len(reply.GetNodes()) != 1 || reply.GetNodes()[0].GetName() != "n1" {
		t.Fatalf("got %v, %v", &reply, err)
	}
	if !strings.Contains(string(body), "blue") {
		t.Errorf("the body lost what was not known: %s", body)
	}
}

func TestErrors(t *testing.T) {
	for _, tc := range []struct {
		name    string
		handler http.HandlerFunc
		want    string
		code    codes.Code // of the StatusError, OK if it is none
	}{
		{
			name: "status",
			handler: func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(http.StatusNotFound)
				_, _ = w.Write([]byte(`{"code":5,"message":"no such thing","details":[]}`))
			},
			want: "no such thing", code: codes.NotFound,
		},
		{
			name:    "not our server",
			handler: func(w http.ResponseWriter, _ *http.Request) { http.NotFound(w, nil) },
			want:    "is it the --rest-port of a daemon?",
		},
		{
			name:    "not JSON",
			handler: func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) },
			want:    "does not answer /v1/nodes as AppSwitch does",
		},
		{
			name: "an error that is no status",
			handler: func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(http.StatusBadGateway)
				_, _ = w.Write([]byte(`{}`))
			},
			want: "502 Bad Gateway",
		},
		{
			name:    "silent",
			handler: func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
			want:    "did not answer within 300ms",
		},
		{
			name: "endless",
			handler: func(w http.ResponseWriter, _ *http.Request) {
				chunk := []byte(strings.Repeat(" ", 1<<20))
				for range MaxResponse>>20 + 1 {
					if _, err := w.Write(chunk); err != nil {
						return
					}
				}
			},
			want: "more than 64 MiB",
		},
		{
			name: "cut off",
			handler: func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", "100")
				_, _ = w.Write([]byte(`{`))
			},
			want: "unexpected EOF",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := serve(t, tc.handler)
			if tc.name == "endless" {
				c.http.Timeout = DefaultTimeout
			}
			var reply registryv1.ListNodesResponse
			_, err := c.Get(context.Background(), "/v1/nodes", nil, &reply)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want %q", err, tc.want)
			}
			var status *StatusError
			if errors.As(err, &status) != (tc.code != codes.OK) || status != nil && status.Code != tc.code {
				t.Errorf("got %#v, want code %s", err, tc.code)
			}
		})
	}
}

func TestUnreachable(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	s.Close()
	c, err := New(s.URL, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Get(context.Background(), "/v1/nodes", nil, nil)
	if want := "the daemon is not running at " + s.URL + ": start it with `sudo ax daemon`"; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err = c.Get(ctx, "/v1/nodes", nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want a cancelled context", err)
	}
}

func TestNew(t *testing.T) {
	for server, want := range map[string]string{
		"127.0.0.1:6664":         "http://127.0.0.1:6664",
		"http://[::1]:6664":      "http://[::1]:6664",
		"https://node1:6664/ax/": "https://node1:6664/ax/",
		"ftp://node1":            "",
		"http://":                "",
		"http://user:secret@x":   "",
		"http://x?y=z":           "",
		"http://x y":             "",
	} {
		c, err := New(server, time.Second)
		switch {
		case want == "" && err == nil:
			t.Errorf("New(%q): accepted", server)
		case want != "" && (err != nil || c.Server() != want):
			t.Errorf("New(%q) = %v, %v, want %s", server, c, err, want)
		}
	}
	if _, err := New(DefaultServer, 0); err == nil {
		t.Error("a timeout of 0 was accepted")
	}
}
