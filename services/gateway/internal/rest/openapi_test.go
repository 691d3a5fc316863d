package rest

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi2"
	"github.com/getkin/kin-openapi/openapi2conv"
	"github.com/getkin/kin-openapi/openapi3"
)

// description returns what GET /openapi.json describes, checked against the OpenAPI specification.
func description(t *testing.T, f *fixture) *openapi3.T {
	t.Helper()
	code, body := f.call(t, "GET", "/openapi.json", "")
	if code != http.StatusOK {
		t.Fatalf("%d %s", code, body)
	}
	var v2 openapi2.T
	if err := json.Unmarshal([]byte(body), &v2); err != nil || v2.Swagger != "2.0" {
		t.Fatalf("version %q, %v", v2.Swagger, err)
	}
	doc, err := openapi2conv.ToV3(&v2)
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestTheDescriptionIsValidOpenAPI(t *testing.T) {
	doc := description(t, newFixture(t, &backend{}, asIs))
	ids := map[string]bool{}
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			if op.Summary == "" || ids[op.OperationID] {
				t.Errorf("%s %s: summary %q, operation %q", method, path, op.Summary, op.OperationID)
			}
			ids[op.OperationID] = true
			if e := op.Responses.Value("default"); e == nil || !describesStatus(e.Value) {
				t.Errorf("%s %s: errors are not described as google.rpc.Status", method, path)
			}
		}
	}
}

func describesStatus(r *openapi3.Response) bool {
	for _, media := range r.Content {
		if media.Schema.Ref != "#/components/schemas/rpcStatus" {
			return false
		}
	}
	return len(r.Content) > 0
}

// TestAnswersAreAsDescribed compares what the server says with what its description says, field by field.
func TestAnswersAreAsDescribed(t *testing.T) {
	f := newFixture(t, &backend{}, asIs)
	doc := description(t, f)
	f.call(t, "POST", "/v1/vservices", `{"name":"web","ip":"1.1.1.1","ports":[{"virtualPort":80,"backendPort":8080}],"backends":["2.2.2.2"]}`)
	called := map[string]bool{}
	for _, c := range []struct{ method, path, url, body string }{
		{"GET", "/v1/nodes", "", ""},
		{"GET", "/v1/apps", "", ""},
		{"GET", "/v1/servers", "", ""},
		{"GET", "/v1/sockets", "/v1/sockets?appId=x", ""},
		{"GET", "/v1/proxies", "", ""},
		{"GET", "/v1/vservices", "", ""},
		{"GET", "/v1/vservices/{name}", "/v1/vservices/web", ""},
		{"POST", "/v1/vservices", "", `{"name":"db","ip":"1.1.1.2"}`},
		{"PUT", "/v1/vservices/{name}", "/v1/vservices/db", `{"ip":"1.1.1.3"}`},
		{"DELETE", "/v1/vservices/{name}", "/v1/vservices/db", ""},
		{"PUT", "/v1/policies/{name}", "/v1/policies/p", `{"action":"POLICY_ACTION_DENY"}`},
		{"GET", "/v1/policies", "", ""},
		{"GET", "/v1/policies/{name}", "/v1/policies/p", ""},
		{"POST", "/v1/policies", "", `{"name":"q","action":"POLICY_ACTION_DENY","toCidrs":["10.0.0.0/8"],"portRanges":[{"first":80,"last":90}]}`},
		{"POST", "/v1/policies:replay", "", `{"policies":[{"name":"d"}],"flows":[{"destination":{"ip":"1.1.1.1","port":80}}]}`},
		{"DELETE", "/v1/policies/{name}", "/v1/policies/p", ""},
		{"GET", "/v1/explain", "/v1/explain?destination=1.1.1.1:80", ""},
		{"GET", "/v1/flows", "/v1/flows?appId=short", ""},
		{"GET", "/v1/watch", "/v1/watch?kinds=KIND_APP", ""},
		{"GET", "/v1/ejections", "", ""},
		{"GET", "/v1/drains", "", ""},
		{"PUT", "/v1/drains", "", ""},
		{"DELETE", "/v1/drains", "", ""},
		{"PUT", "/v1/drains/{appId}", "/v1/drains/a", ""},
		{"DELETE", "/v1/drains/{appId}", "/v1/drains/nosuch", ""},   // an error
		{"GET", "/v1/vservices/{name}", "/v1/vservices/nosuch", ""}, // an error
	} {
		url := c.url
		if url == "" {
			url = c.path
		}
		code, body := f.call(t, c.method, url, c.body)
		op := doc.Paths.Value(c.path).GetOperation(c.method)
		response := op.Responses.Status(code)
		if response == nil {
			response = op.Responses.Default()
		}
		for line := range strings.Lines(body) {
			var value any
			if err := json.Unmarshal([]byte(line), &value); err != nil {
				t.Fatalf("%s %s: %v in %s", c.method, url, err, line)
			}
			contentType := "application/json"
			if streams[c.path] {
				contentType = "application/x-ndjson"
			}
			asDescribed(t, c.method+" "+url, response.Value.Content[contentType].Schema.Value, value)
		}
		called[c.method+" "+c.path] = true
	}
	for path, item := range doc.Paths.Map() {
		for method := range item.Operations() {
			if !called[method+" "+path] {
				t.Errorf("%s %s is not tried", method, path)
			}
		}
	}
}

// asDescribed checks a value against its schema, in which no field may be missing; null stands for one that is not set.
func asDescribed(t *testing.T, at string, schema *openapi3.Schema, value any) {
	t.Helper()
	switch v := value.(type) {
	case nil:
	case []any:
		for _, e := range v {
			asDescribed(t, at+"[]", schema.Items.Value, e)
		}
	case map[string]any:
		for key, e := range v {
			property := schema.Properties[key]
			if property == nil {
				property = schema.AdditionalProperties.Schema // of a map
			}
			if property == nil {
				if schema.AdditionalProperties.Schema == nil && len(schema.Properties) > 0 && schema.Properties["@type"] == nil {
					t.Errorf("%s.%s is not described", at, key)
				}
				continue
			}
			asDescribed(t, at+"."+key, property.Value, e)
		}
	default:
		if err := schema.VisitJSON(value); err != nil {
			t.Errorf("%s: %v", at, err)
		}
	}
}
