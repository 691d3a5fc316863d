package rest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	"github.com/opentracing/opentracing-go/mocktracer"
	"google.golang.org/grpc"
)

func mustAddrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func asIs(*Config) {}

func TestTheTables(t *testing.T) {
	b := &backend{}
	f := newFixture(t, b, asIs)
	for path, want := range map[string]string{
		"/v1/nodes":          `{"nodes":[{"name":"n1","cluster":"","ip":"10.0.2.15","version":"","driver":"","startTime":null,"reservedPorts":[],"labels":{},"draining":false}],"revision":"12"}`,
		"/v1/apps":           `{"apps":[],"revision":"0"}`,
		"/v1/vservices":      `{"virtualServices":[],"revision":"0"}`,
		"/v1/proxies":        `{"proxies":[]}`,
		"/v1/sockets?app_id": `{"sockets":[{"id":"s","node":"","appId":"","inode":"0","protocol":"PROTOCOL_UNSPECIFIED","flags":0,"bindAddress":null,"peerAddress":null,"backlog":0,"hostAddress":null}]}`,
	} {
		code, body := f.call(t, "GET", path, "")
		if code != 200 || body != want {
			t.Errorf("%s: %d\n%s\nwant\n%s", path, code, body, want)
		}
	}
	if code, body := f.call(t, "GET", "/v1/servers", ""); code != 200 || !strings.Contains(body, `"serviceAddress"`) || !strings.Contains(body, `"stale"`) || !strings.Contains(body, `"PROTOCOL_TCP"`) {
		t.Errorf("servers: %d %s", code, body)
	}
	if _, body := f.call(t, "GET", "/v1/sockets?appId=0badcafe", ""); !strings.Contains(body, "0badcafe") {
		t.Errorf("the query did not arrive: %s", body)
	}
	code, body := f.call(t, "GET", "/v1/explain?app=web&labels=a%3Db&labels=c%3Dd&destination=1.1.1.1:80", "")
	if code != 200 || !strings.Contains(body, "VERDICT_DENY") || b.explain.GetApp() != "web" || len(b.explain.GetLabels()) != 2 {
		t.Errorf("explain: %d %s, request %v", code, body, b.explain)
	}
}

func TestLifeOfAVirtualService(t *testing.T) {
	f := newFixture(t, &backend{}, asIs)
	const web = `{"name":"web","ip":"1.1.1.1","balancer":"BALANCER_TYPE_ROUND_ROBIN","ports":[{"virtualPort":80,"backendPort":8080}],"backends":["2.2.2.2"]}`
	for _, c := range []struct {
		method, path, body string
		code               int
		rpc                int
		want               string
	}{
		{"GET", "/v1/vservices/web", "", 404, 5, `virtual service "web" does not exist`},
		{"POST", "/v1/vservices", web, 200, 0, `"revision"`},
		{"POST", "/v1/vservices", web, 409, 6, "exists"},
		{"GET", "/v1/vservices/web", "", 200, 0, `"BALANCER_TYPE_ROUND_ROBIN"`},
		{"GET", "/v1/vservices", "", 200, 0, `"virtualPort"`},
		{"PUT", "/v1/vservices/web?dryRun=true", `{"sessionAffinity":"600s"}`, 200, 0, `"revision":"0"`},
		{"GET", "/v1/vservices/web", "", 200, 0, `"sessionAffinity":null`},
		{"PUT", "/v1/vservices/web", `{"name":"other","sessionAffinity":"600s","weights":{"2.2.2.2":3},"backends":["2.2.2.2"]}`, 200, 0, `"APPLY_OUTCOME_CONFIGURED"`},
		{"GET", "/v1/vservices/web", "", 200, 0, `"sessionAffinity":"600s"`},
		{"GET", "/v1/vservices/web", "", 200, 0, `"weights":{"2.2.2.2":3}`},
		{"PUT", "/v1/vservices/web", `{"sessionAffinity":"soon"}`, 400, 3, "invalid google.protobuf.Duration"},
		{"PUT", "/v1/policies/p", `{"action":"POLICY_ACTION_DENY"}`, 200, 0, `"name":"p"`},
		{"GET", "/v1/policies", "", 200, 0, `"POLICY_ACTION_DENY"`},
		{"GET", "/v1/policies/p", "", 200, 0, `"fromSelector":""`},
		{"POST", "/v1/policies", `{"name":"q","action":"POLICY_ACTION_DENY","from":{"role":"test"},"toCidrs":["10.0.0.0/8"],"portRanges":[{"first":80,"last":90}],"audit":true}`, 200, 0, `"audit":true`},
		{"POST", "/v1/policies", `{"name":"taken"}`, 409, 6, "exists"},
		{"POST", "/v1/policies", `{"name":"q","form":{}}`, 400, 3, `"form"`},
		{"POST", "/v1/policies:replay", `{"policies":[{"name":"d"}],"flows":[{"destination":{"ip":"1.1.1.1","port":80}}]}`, 200, 0, `"policy-deny: d"`},
		{"DELETE", "/v1/policies/p", "", 404, 5, "no policy"},
		{"DELETE", "/v1/vservices/web", "", 200, 0, `"14"`},
		{"DELETE", "/v1/vservices/web", "", 404, 5, "does not exist"},
		{"POST", "/v1/vservices", `{"ip":"1.1.1.1"}`, 400, 3, "virtual_service.name: missing"},
		{"POST", "/v1/vservices", `{"nam":"web"}`, 400, 3, `"nam"`},
		{"POST", "/v1/vservices", `{"name":`, 400, 3, ""},
		{"POST", "/v1/vservices", `{"name":"` + strings.Repeat("x", MaxBody) + `"}`, 413, 3, "larger than 1048576 bytes"},
		{"POST", "/v1/vservices", `{"name":"panic"}`, 500, 13, "internal error"},
		{"PUT", "/v1/vservices", web, 405, 12, "PUT is not possible"},
		{"GET", "/v1/nothing", "", 404, 5, "GET /openapi.json lists the API"},
		{"GET", "/", "", 404, 5, "GET /openapi.json lists the API"},
		{"GET", "/v1/vservices/a/b", "", 404, 5, "there is nothing"},
	} {
		code, body := f.call(t, c.method, c.path, c.body)
		if code != c.code || !strings.Contains(body, c.want) && !strings.Contains(body, strings.ReplaceAll(c.want, `"`, `\"`)) {
			t.Errorf("%s %s: %d %s, want %d with %q", c.method, c.path, code, body, c.code, c.want)
		}
		if c.rpc != 0 {
			if st := statusOf(t, body); st.Code != c.rpc {
				t.Errorf("%s %s: google.rpc.Code %d, want %d", c.method, c.path, st.Code, c.rpc)
			}
		}
	}
}

func TestAFieldIsNamedInTheDetails(t *testing.T) {
	f := newFixture(t, &backend{}, asIs)
	_, body := f.call(t, "POST", "/v1/vservices", `{}`)
	st := statusOf(t, body)
	if len(st.Details) != 1 || st.Details[0]["@type"] != "type.googleapis.com/google.rpc.BadRequest" || !strings.Contains(body, "virtual_service.name") {
		t.Errorf("details: %s", body)
	}
}

func TestBodyOfUnknownLengthIsBoundedToo(t *testing.T) {
	f := newFixture(t, &backend{}, asIs)
	body := io.MultiReader(strings.NewReader(`{"name":"`), strings.NewReader(strings.Repeat("x", MaxBody)), strings.NewReader(`"}`))
	resp, err := client.Post(f.url+"/v1/vservices", "application/json", body)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("got %d", resp.StatusCode)
	}
}

func TestOwnPages(t *testing.T) {
	f := newFixture(t, &backend{}, asIs)
	if code, body := f.call(t, "GET", "/healthz", ""); code != 200 || body != "ok\n" {
		t.Errorf("healthz: %d %q", code, body)
	}
	f.call(t, "GET", "/v1/vservices/web", "")
	if code, body := f.call(t, "GET", "/metrics", ""); code != 200 || !strings.Contains(body, `appswitch_gateway_rest_requests_total{path="/v1/vservices/{name=*}",status="404"} 1`) {
		t.Errorf("metrics: %d\n%s", code, body)
	}
	code, body := f.call(t, "GET", "/openapi.json", "")
	var doc struct {
		Info  struct{ Title, Version string }
		Paths map[string]map[string]struct {
			Responses map[string]struct{ Description string }
		}
	}
	if err := json.Unmarshal([]byte(body), &doc); err != nil || code != 200 || doc.Info.Title != "AppSwitch" || doc.Info.Version == "version not set" {
		t.Fatalf("openapi: %d, %v, %+v", code, err, doc.Info)
	}
	for _, p := range []string{"/v1/nodes", "/v1/apps", "/v1/servers", "/v1/sockets", "/v1/proxies", "/v1/vservices", "/v1/vservices/{name}", "/v1/policies", "/v1/policies/{name}", "/v1/policies:replay", "/v1/explain", "/v1/flows", "/v1/ejections", "/v1/drains", "/v1/drains/{appId}"} {
		if doc.Paths[p] == nil {
			t.Errorf("the description lacks %s", p)
		}
	}
	for path, methods := range doc.Paths {
		for _, m := range methods {
			if stream := strings.Contains(m.Responses["200"].Description, "(streaming responses)"); stream != streams[path] {
				t.Errorf("%s: a stream by its description %v, in streams %v", path, stream, streams[path])
			}
		}
	}
}

func TestStreamsAreLinesOfJSON(t *testing.T) {
	f := newFixture(t, &backend{}, asIs)
	resp, err := client.Get(f.url + "/v1/flows?app_id=short")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if ct := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || ct != "application/x-ndjson" {
		t.Errorf("%d, %q", resp.StatusCode, ct)
	}
	var errnos []string
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		var line struct {
			Result struct {
				Flow   struct{ AppID, Errno string }
				Missed *string
			}
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil || line.Result.Missed == nil {
			t.Fatalf("line %q: %v", lines.Text(), err)
		}
		errnos = append(errnos, line.Result.Flow.Errno)
	}
	if len(errnos) != 2 || errnos[1] != "ECONNREFUSED" {
		t.Errorf("flows: %q", errnos)
	}
	// An error before the first line has its own code.
	if code, body := f.call(t, "GET", "/v1/flows?app_id=none", ""); code != 404 || !strings.Contains(body, "is not on this node") {
		t.Errorf("%d %s", code, body)
	}
}

// TestTheTableCanBeWatched: a list in parts, changes, and as a last line why the stream ended.
func TestTheTableCanBeWatched(t *testing.T) {
	f := newFixture(t, &backend{}, asIs)
	code, body := f.call(t, "GET", "/v1/watch?kinds=KIND_APP", "")
	var got []string
	for line := range strings.Lines(body) {
		var m struct {
			Result *struct {
				Revision       string
				List, Complete bool
				Changes        []struct {
					Put    struct{ App struct{ ID string } }
					Delete struct{ Kind, Key string }
				}
			}
			Error struct {
				Code    int
				Message string
			}
		}
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		if m.Result == nil {
			got = append(got, fmt.Sprintf("error %d %s", m.Error.Code, m.Error.Message))
			continue
		}
		got = append(got, fmt.Sprintf("%s list=%v complete=%v %v", m.Result.Revision, m.Result.List, m.Result.Complete, m.Result.Changes))
	}
	want := []string{
		"5 list=true complete=false [{{{a1}} { }}]", "5 list=true complete=true [{{{a2}} { }}]",
		"6 list=false complete=true [{{{}} {KIND_APP a1}}]", "error 8 watcher is too slow: resume from the last revision seen",
	}
	if code != 200 || !slices.Equal(got, want) {
		t.Errorf("%d %q, want %q", code, got, want)
	}
	if code, body := f.call(t, "GET", "/v1/watch?kinds=KIND_NONE", ""); code != 400 || !strings.Contains(body, "kinds") {
		t.Errorf("an unknown kind: %d %s", code, body)
	}
}

func TestAStreamOutlivesTheTimeoutOfAnswers(t *testing.T) {
	f := newFixture(t, &backend{}, func(c *Config) { c.writeTimeout = testWriteTimeout })
	if code, body := f.call(t, "GET", "/v1/flows?app_id=slow", ""); code != 200 || strings.Count(body, "\n") != 2 {
		t.Errorf("%d %q", code, body)
	}
}

// HTTP/2 differs: there a deadline that has passed between messages can't be moved.
func TestAStreamOverHTTP2OutlivesTheTimeoutOfAnswers(t *testing.T) {
	f := newFixture(t, &backend{}, func(c *Config) { c.writeTimeout = testWriteTimeout })
	srv := httptest.NewUnstartedServer(f.handler)
	srv.EnableHTTP2 = true
	srv.Config.WriteTimeout = testWriteTimeout
	srv.StartTLS()
	defer srv.Close()
	resp, err := srv.Client().Get(srv.URL + "/v1/flows?app_id=slow")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.ProtoMajor != 2 || bytes.Count(body, []byte("\n")) != 2 {
		t.Errorf("HTTP/%d: %q, %v", resp.ProtoMajor, body, err)
	}
}

func TestAReaderThatStopsReadingIsCutOff(t *testing.T) {
	b := &backend{}
	f := newFixture(t, b, func(c *Config) { c.writeTimeout = testWriteTimeout })
	c, err := net.Dial("tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET /v1/flows?app_id=flood HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1<<16)); err != nil {
		t.Fatal(err)
	}
	within(t, "the backend's stream", b.streams.Wait)
	waitFor(t, func() bool { return gauge(t, f, "appswitch_gateway_rest_in_flight") == 0 })
}

func TestStreamsAreBounded(t *testing.T) {
	f := newFixture(t, &backend{}, asIs)
	ctx, cancel := context.WithCancel(t.Context())
	var open sync.WaitGroup
	for range MaxStreams {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.url+"/v1/flows", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		open.Go(func() {
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		})
	}
	code, body := f.call(t, "GET", "/v1/flows", "")
	if st := statusOf(t, body); code != http.StatusServiceUnavailable || st.Code != 8 {
		t.Errorf("%d %s", code, body)
	}
	if code, _ := f.call(t, "GET", "/v1/nodes", ""); code != 200 {
		t.Errorf("another call: %d", code)
	}
	cancel()
	open.Wait()
}

func TestStreamsEndWithTheirCaller(t *testing.T) {
	b := &backend{}
	f := newFixture(t, b, asIs)
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.url+"/v1/flows", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := bufio.NewReader(resp.Body).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	cancel()
	within(t, "the backend's stream", b.streams.Wait)
}

func within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { f(); close(done) }()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Fatalf("%s did not end", what)
	}
}

func TestStopEndsStreamsAndLetsCallsFinish(t *testing.T) {
	b := &backend{hang: make(chan struct{})}
	f := newFixture(t, b, asIs)
	resp, err := client.Get(f.url + "/v1/flows")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewReader(resp.Body)
	if _, err := lines.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	var (
		wg   sync.WaitGroup
		code int
	)
	wg.Go(func() { code, _ = f.call(t, "GET", "/v1/nodes", "") })
	waitFor(t, func() bool { return gauge(t, f, "appswitch_gateway_rest_in_flight") == 2 })
	stopped := make(chan struct{})
	begin := time.Now()
	go func() { f.stop(); close(stopped) }()
	within(t, "the stream", func() { _, _ = io.ReadAll(lines) })
	close(b.hang)
	wg.Wait()
	<-stopped
	if code != 200 {
		t.Errorf("the call in flight got %d", code)
	}
	if d := time.Since(begin); d > stopTimeout+time.Second {
		t.Errorf("the stop took %v", d)
	}
}

func TestABackendThatIsAway(t *testing.T) {
	f := newFixture(t, &backend{}, asIs)
	f.stopRPC()
	for path, name := range map[string]string{"/v1/nodes": "registry", "/v1/sockets": "node agent", "/v1/explain": "router", "/v1/flows": "node agent"} {
		begin := time.Now()
		code, body := f.call(t, "GET", path, "")
		if d := time.Since(begin); d > CallTimeout {
			t.Errorf("%s took %v", path, d)
		}
		if code != http.StatusServiceUnavailable || !strings.Contains(body, "the "+name+" is not available") {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	// What needs no backend goes on.
	for _, path := range []string{"/healthz", "/v1/proxies", "/openapi.json"} {
		if code, _ := f.call(t, "GET", path, ""); code != 200 {
			t.Errorf("%s: %d", path, code)
		}
	}
}

func TestABackendThatHangs(t *testing.T) {
	f := newFixture(t, &backend{hang: make(chan struct{})}, asIs)
	begin := time.Now()
	code, body := f.call(t, "GET", "/v1/nodes", "")
	if d := time.Since(begin); d < CallTimeout-time.Second || d > CallTimeout+2*time.Second {
		t.Errorf("it took %v", d)
	}
	if st := statusOf(t, body); code != http.StatusGatewayTimeout || st.Message != "the registry did not answer within 5s" {
		t.Errorf("%d %s", code, body)
	}
}

// panicky panics in the gateway's own process.
type panicky struct {
	registryv1.RegistryServiceClient
}

func (panicky) ListNodes(context.Context, *registryv1.ListNodesRequest, ...grpc.CallOption) (*registryv1.ListNodesResponse, error) {
	panic("a secret")
}

func TestAPanicIsAnswered(t *testing.T) {
	f := newFixture(t, &backend{}, func(c *Config) { c.Registry = panicky{} })
	code, body := f.call(t, "GET", "/v1/nodes", "")
	if st := statusOf(t, body); code != 500 || strings.Contains(st.Message, "secret") {
		t.Errorf("%d %s", code, body)
	}
	if !strings.Contains(f.log.String(), "a secret") || !strings.Contains(f.log.String(), "stack=") {
		t.Errorf("log:\n%s", f.log)
	}
	if gauge(t, f, "appswitch_gateway_rest_in_flight") != 0 || gauge(t, f, "appswitch_gateway_rest_panics_total") != 1 {
		t.Error("the panic is not accounted for")
	}
}

func TestWebPagesAreKeptOut(t *testing.T) {
	f := newFixture(t, &backend{}, asIs)
	for name, edit := range map[string]func(*http.Request){
		"rebound name": func(r *http.Request) { r.Host = "evil.example:6664" },
		"other site":   func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") },
	} {
		r := httptest.NewRequest(http.MethodPost, "http://127.0.0.1:6664/v1/vservices", strings.NewReader(`{"name":"x"}`))
		edit(r)
		w := f.direct(r)
		if st := statusOf(t, w.Body.String()); w.Code != http.StatusForbidden || st.Code != 7 {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
	if code, _ := f.call(t, "GET", "/v1/vservices/x", ""); code != 404 {
		t.Errorf("the page created a service: %d", code)
	}
	if n := gauge(t, f, "appswitch_gateway_rest_refused_total"); n != 2 {
		t.Errorf("%v counted", n)
	}
}

func TestRequestsInFlightAreBounded(t *testing.T) {
	b := &backend{hang: make(chan struct{})}
	f := newFixture(t, b, asIs)
	var wg sync.WaitGroup
	for range MaxRequests {
		wg.Go(func() { f.direct(httptest.NewRequest(http.MethodGet, "http://127.0.0.1/v1/nodes", nil)) })
	}
	waitFor(t, func() bool { return gauge(t, f, "appswitch_gateway_rest_in_flight") == MaxRequests })
	code, body := f.call(t, "GET", "/healthz", "")
	if st := statusOf(t, body); code != http.StatusServiceUnavailable || st.Code != 8 {
		t.Errorf("%d %s", code, body)
	}
	close(b.hang)
	wg.Wait()
	if code, _ := f.call(t, "GET", "/healthz", ""); code != 200 {
		t.Errorf("afterwards: %d", code)
	}
	if n := gauge(t, f, "appswitch_gateway_rest_refused_total"); n != 1 {
		t.Errorf("%v counted as refused", n)
	}
}

func TestHeadersAreBoundedAndDoNotBecomeMetadata(t *testing.T) {
	b := &backend{}
	f := newFixture(t, b, asIs)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, f.url+"/healthz", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Long", strings.Repeat("x", 2*MaxHeader))
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a long header: %d", resp.StatusCode)
	}
	r := httptest.NewRequest(http.MethodGet, "http://127.0.0.1/v1/apps", nil)
	r.Header.Set("Grpc-Metadata-Role", "node")
	r.Header.Set("Authorization", "Bearer x")
	r.Header.Set("X-Forwarded-For", "10.0.2.15")
	if w := f.direct(r); w.Code != 200 {
		t.Errorf("got %d", w.Code)
	}
	for key, values := range b.metadata {
		for _, v := range values {
			if v == "node" {
				t.Errorf("the header arrived as %s", key)
			}
		}
	}
	if len(b.metadata) == 0 {
		t.Error("the backend saw no metadata at all")
	}
}

func TestCallsAreTraced(t *testing.T) {
	tracer := mocktracer.New()
	f := newFixture(t, &backend{}, func(c *Config) { c.Tracer = tracer })
	f.call(t, "GET", "/v1/vservices/web", "")
	waitFor(t, func() bool { return len(tracer.FinishedSpans()) == 1 })
	sp := tracer.FinishedSpans()[0]
	if sp.OperationName != "GET /v1/vservices/{name=*}" || sp.Tag("http.status_code") != uint16(404) {
		t.Errorf("%s %v", sp.OperationName, sp.Tags())
	}
}

func TestOnlyLoopbackWithoutTLS(t *testing.T) {
	f := newFixture(t, &backend{}, asIs)
	f.stop()
	s := &Server{cfg: Config{Addresses: []netip.AddrPort{mustAddrPort(f.addr), mustAddrPort("0.0.0.0:0")}}, handler: f.handler}
	if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "without TLS") {
		t.Errorf("got %v", err)
	}
	// The first listener was closed again.
	l, err := net.Listen("tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
}

func TestTakenPortIsAClearError(t *testing.T) {
	f := newFixture(t, &backend{}, asIs)
	s := &Server{cfg: Config{Addresses: []netip.AddrPort{mustAddrPort(f.addr)}}, handler: f.handler}
	if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "--rest-port") || !strings.Contains(err.Error(), f.addr) {
		t.Errorf("got %v", err)
	}
}
