package webguard

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestProtect(t *testing.T) {
	h := Protect(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }), []string{"10.0.2.15", "Node-1"}, Plain)
	for _, c := range []struct {
		name, host, origin, site string
		tls                      bool
		want                     int
	}{
		{"curl by address", "127.0.0.1:6664", "", "", false, 200},
		{"curl by name", "localhost:6664", "", "", false, 200},
		{"other loopback", "127.1.2.3:6664", "", "", false, 200},
		{"IPv6 loopback", "[::1]:6664", "", "", false, 200},
		{"IPv6 loopback, no port", "[::1]", "", "", false, 200},
		{"subdomain of localhost", "ax.localhost:6664", "", "", false, 200},
		{"own address", "10.0.2.15:6664", "", "", false, 200},
		{"own name, any case", "NODE-1:6664", "", "", false, 200},
		{"page of this server", "127.0.0.1:6664", "http://127.0.0.1:6664", "same-origin", false, 200},
		{"typed by the user", "127.0.0.1:6664", "", "none", false, 200},
		{"rebound name", "evil.example:6664", "", "", false, 403},
		{"rebound name, same origin", "evil.example:6664", "http://evil.example:6664", "same-origin", false, 403},
		{"looks like loopback", "127.0.0.1.evil.example:6664", "", "", false, 403},
		{"looks like localhost", "localhost.evil.example", "", "", false, 403},
		{"other address", "10.0.2.16:6664", "", "", false, 403},
		{"no host", "", "", "", false, 403},
		{"page of another site", "127.0.0.1:6664", "https://evil.example", "cross-site", false, 403},
		{"page of another port", "127.0.0.1:6664", "http://127.0.0.1:8080", "same-site", false, 403},
		{"sandboxed page", "127.0.0.1:6664", "null", "", false, 403},
		{"malformed origin", "127.0.0.1:6664", "http://%", "", false, 403},
		{"image on another site", "127.0.0.1:6664", "", "cross-site", false, 403},
		{"TLS, certificate's name", "api.example", "", "", true, 200},
		{"TLS, page of another site", "api.example", "https://evil.example", "", true, 403},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Host = c.host
		if c.origin != "" {
			r.Header.Set("Origin", c.origin)
		}
		if c.site != "" {
			r.Header.Set("Sec-Fetch-Site", c.site)
		}
		if c.tls {
			r.TLS = &tls.ConnectionState{}
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != c.want {
			t.Errorf("%s: got %d, want %d", c.name, w.Code, c.want)
		}
	}
}

func TestRefusalShowsStrangersBriefly(t *testing.T) {
	h := Protect(http.NotFoundHandler(), nil, Plain)
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Host = strings.Repeat("x", 500) + "\xff"
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != http.StatusForbidden || w.Body.Len() > 200 {
		t.Errorf("%d, %d bytes", w.Code, w.Body.Len())
	}
}
