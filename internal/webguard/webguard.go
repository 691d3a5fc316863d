// Package webguard keeps web pages away from HTTP servers that trust whoever can reach them.
//
// A port on loopback is open to every page that the user's browser shows. The invariant: a request is let through only
// if it was addressed to this server by its own name or address, and no other site sent it. Start reading at [Protect].
package webguard

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// Protect refuses requests whose Host is neither loopback, localhost nor one of hosts (a page on a name that its owner
// has pointed at 127.0.0.1: DNS rebinding), and those that a page of another origin sent.
// refuse answers them; hosts are names or addresses without port.
func Protect(next http.Handler, hosts []string, refuse func(w http.ResponseWriter, r *http.Request, reason string)) http.Handler {
	own := make([]string, len(hosts))
	for i, h := range hosts {
		own[i] = strings.ToLower(h)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.TLS == nil && !knownHost(r.Host, own): // with TLS the certificate has settled the name
			refuse(w, r, "Host "+quote(r.Host)+" is not a name of this server: call it by its address")
		case !sameOrigin(r):
			refuse(w, r, "Origin "+quote(r.Header.Get("Origin"))+" is another site: pages of other sites may not call this server")
		case r.Header.Get("Sec-Fetch-Site") == "cross-site":
			refuse(w, r, "the request comes from a page of another site: such pages may not call this server")
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// Plain is a refuse function that answers 403 in plain text.
func Plain(w http.ResponseWriter, _ *http.Request, reason string) {
	http.Error(w, reason, http.StatusForbidden)
}

func knownHost(hostport string, own []string) bool {
	host := strings.ToLower(hostOf(hostport))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") || slices.Contains(own, host) {
		return true
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	return ip.Unmap().IsLoopback() || slices.Contains(own, ip.Unmap().String())
}

// sameOrigin reports whether the request has no Origin (no browser, or a plain visit) or that of this server.
func sameOrigin(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && strings.EqualFold(u.Host, r.Host)
}

func hostOf(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		return host
	}
	return strings.Trim(hostport, "[]")
}

// quote shows a header of a stranger, cut to a length that fits a line.
func quote(s string) string {
	const most = 80
	if len(s) > most {
		s = s[:most] + "…"
	}
	return "\"" + strings.ToValidUTF8(s, "?") + "\""
}
