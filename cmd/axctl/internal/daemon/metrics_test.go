package daemon

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// documented is a row of docs/metrics.md.
type documented struct{ kind, labels string }

var metricRow = regexp.MustCompile("^\\| `(appswitch_[a-z0-9_]+)` \\| (counter|gauge|histogram) \\| ([^|]*) \\| .+ \\|$")

func documentedMetrics(t *testing.T) map[string]documented {
	t.Helper()
	text, err := os.ReadFile("../../../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]documented{}
	for line := range strings.Lines(string(text)) {
		m := metricRow.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			if strings.HasPrefix(line, "| `appswitch_") {
				t.Errorf("docs/metrics.md: this row can't be read: %s", line)
			}
			continue
		}
		if _, twice := out[m[1]]; twice {
			t.Errorf("docs/metrics.md has %s twice", m[1])
		}
		out[m[1]] = documented{m[2], strings.TrimSpace(strings.ReplaceAll(m[3], "`", ""))}
	}
	return out
}

// TestMetricsAreThoseOfTheDocumentation scrapes a daemon that has been used and compares, both ways.
func TestMetricsAreThoseOfTheDocumentation(t *testing.T) {
	o := options(t, t.TempDir(), "--otlp-endpoint=http://127.0.0.1:1", "--dns-servers=127.0.0.1:1")
	o.Reload = &Reload{Load: func() (*Options, error) { return o, nil }}
	d := start(t, o)
	defer d.stop(t)
	call(t, "GET", "http://"+o.restAddrs()[0]+"/v1/nodes", "")
	lookUp(t, o)
	body := scrape(t, "http://"+o.Telemetry.MetricsListen+"/metrics")

	problems, err := promlint.New(bytes.NewReader(body)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "appswitch_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	want := documentedMetrics(t)
	for name, family := range families {
		if !strings.HasPrefix(name, "appswitch_") {
			continue
		}
		got := documented{strings.ToLower(family.GetType().String()), labelNames(family)}
		if doc, ok := want[name]; !ok {
			t.Errorf("not in docs/metrics.md: | `%s` | %s | %s | %s |", name, got.kind, got.labels, family.GetHelp())
		} else if doc != got {
			t.Errorf("%s is %+v, docs/metrics.md says %+v", name, got, doc)
		}
		delete(want, name)
	}
	for name := range want {
		t.Errorf("docs/metrics.md has %s, the daemon does not", name)
	}
}

// labelNames returns the names of a family's labels as the documentation lists them, "-" for none.
func labelNames(f *dto.MetricFamily) string {
	var names []string
	for _, m := range f.GetMetric() {
		for _, l := range m.GetLabel() {
			names = append(names, l.GetName())
		}
	}
	slices.Sort(names)
	if names = slices.Compact(names); len(names) == 0 {
		return "-"
	}
	return strings.Join(names, ", ")
}

func scrape(t *testing.T, url string) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", url, resp.Status, err)
	}
	return body
}

// lookUp asks the daemon's DNS for a name, over UDP.
func lookUp(t *testing.T, o *Options) {
	t.Helper()
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", fmt.Sprintf("127.0.0.1:%d", o.Resolver.Port))
	}}
	if addrs, err := r.LookupHost(t.Context(), "nothing.appswitch.local."); err == nil {
		t.Errorf("a name that nobody has: %v", addrs)
	}
}
