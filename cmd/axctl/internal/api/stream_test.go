package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
)

func TestStream(t *testing.T) {
	for _, tc := range []struct {
		name, body string
		status     int
		messages   int
		want       string // of the error
		code       codes.Code
	}{
		{name: "ends", body: `{"result":{"a":1}}` + "\n\n" + `{"result":{"a":2}}` + "\n", messages: 2, want: ErrStreamEnded.Error()},
		{name: "nothing", want: ErrStreamEnded.Error()},
		{name: "an error", body: `{"result":{}}` + "\n" + `{"error":{"code":8,"message":"too many","details":[]}}`, messages: 1, want: "too many", code: codes.ResourceExhausted},
		{name: "refused", status: 400, body: `{"code":3,"message":"to: bad","details":[]}`, want: "to: bad", code: codes.InvalidArgument},
		{name: "foreign", body: "hello", want: "is it the --rest-port of a daemon?"},
		{name: "neither", body: "{}", want: "is it the --rest-port of a daemon?"},
		{name: "endless", body: strings.Repeat(" ", MaxMessage+1), want: "more than 16777216 bytes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.RawQuery != "last=3" {
					t.Errorf("query %q", r.URL.RawQuery)
				}
				if tc.status != 0 {
					w.WriteHeader(tc.status)
				}
				_, _ = w.Write([]byte(tc.body))
			})
			n := 0
			err := c.Stream(t.Context(), "/v1/flows", map[string][]string{"last": {"3"}}, func(json.RawMessage) error { n++; return nil })
			if n != tc.messages || err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%d messages, %v; want %d, %q", n, err, tc.messages, tc.want)
			}
			var status *StatusError
			if errors.As(err, &status) != (tc.code != codes.OK) || status != nil && status.Code != tc.code {
				t.Errorf("got %#v, want code %s", err, tc.code)
			}
		})
	}
}

// TestStreamLasts longer than other calls may, and ends with its context or when the caller has enough.
func TestStreamLasts(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte(`{"result":{}}` + "\n"))
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	c.http.Timeout = 1 // of other calls
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if err := c.Stream(ctx, "/", nil, func(json.RawMessage) error { cancel(); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want a cancelled context", err)
	}
	enough := errors.New("enough")
	if err := c.Stream(t.Context(), "/", nil, func(json.RawMessage) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("got %v", err)
	}
}

func FuzzMessage(f *testing.F) {
	f.Add([]byte(`{"result":{}}`))
	f.Add([]byte(`{"error":{"code":8}}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		if result, err := message(line); (result == nil) == (err == nil) {
			t.Errorf("%q: %q, %v", line, result, err)
		}
	})
}
