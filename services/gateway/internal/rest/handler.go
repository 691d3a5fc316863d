package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"appswitch.io/internal/version"
	"appswitch.io/internal/webguard"
	"appswitch.io/proto"
	gatewayv1 "appswitch.io/proto/gen/appswitch/gateway/v1"
	nodeagentv1 "appswitch.io/proto/gen/appswitch/nodeagent/v1"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	routerv1 "appswitch.io/proto/gen/appswitch/router/v1"
	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
)

// newHandler puts the pieces together: guard, limits and accounts outside, then our own pages and the generated API.
func newHandler(cfg Config) (http.Handler, error) {
	door, err := newFrontDoor(cfg)
	if err != nil {
		return nil, err
	}
	api := newMux(door)
	ctx := context.Background() // the generated functions keep it for nothing when they are given clients
	if err := errors.Join(
		registryv1.RegisterRegistryServiceHandlerClient(ctx, api, localRegistry{cfg.Registry, cfg.NodeAgent}),
		nodeagentv1.RegisterNodeAgentServiceHandlerClient(ctx, api, cfg.NodeAgent),
		routerv1.RegisterRouterServiceHandlerClient(ctx, api, localRouter{cfg.Router, cfg.NodeAgent}),
		gatewayv1.RegisterGatewayServiceHandlerServer(ctx, api, cfg.Gateway),
	); err != nil {
		return nil, fmt.Errorf("register REST handlers: %w", err)
	}
	description, err := openAPI()
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("/", api)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(description)
	})
	if cfg.Gatherer != nil {
		mux.Handle("GET /metrics", promhttp.HandlerFor(cfg.Gatherer, promhttp.HandlerOpts{}))
	}
	var hosts []string
	for _, a := range cfg.Addresses {
		hosts = append(hosts, a.Addr().String())
	}
	return webguard.Protect(door.limit(mux), hosts, func(w http.ResponseWriter, _ *http.Request, reason string) {
		door.refused.WithLabelValues("guard").Inc()
		writeStatus(w, http.StatusForbidden, status.New(codes.PermissionDenied, reason))
	}), nil
}

// openAPI returns the description of the API with a title and version for readers, and with what the generator does not
// know: that streams are lines of JSON.
func openAPI() ([]byte, error) {
	var doc map[string]any
	var paths struct {
		Paths map[string]map[string]map[string]any `json:"paths"`
	}
	if err := json.Unmarshal(proto.OpenAPI, &doc); err != nil {
		return nil, fmt.Errorf("read the embedded OpenAPI description: %w", err)
	}
	if err := json.Unmarshal(proto.OpenAPI, &paths); err != nil {
		return nil, fmt.Errorf("read the embedded OpenAPI description: %w", err)
	}
	for path := range streams {
		for _, operation := range paths.Paths[path] {
			operation["produces"] = []string{streamType}
		}
	}
	doc["paths"] = paths.Paths
	doc["info"] = map[string]string{"title": "AppSwitch", "description": "What runs where, who may reach whom.", "version": version.Get().Number}
	return json.MarshalIndent(doc, "", " ")
}

// streamType is the content type of streams: JSON objects, one per line.
const streamType = "application/x-ndjson"

// jsonLines is JSON as the contracts describe it, all fields present; streams are one object per line.
type jsonLines struct{ runtime.JSONPb }

// answers writes all of them.
var answers = jsonLines{runtime.JSONPb{
	MarshalOptions:   protojson.MarshalOptions{EmitUnpopulated: true},
	UnmarshalOptions: protojson.UnmarshalOptions{DiscardUnknown: false},
}}

// Marshal implements runtime.Marshaler. protojson writes blanks between values by a hash of the program: whoever compares
// answers, or searches them, would meet others with every build.
func (j jsonLines) Marshal(v any) ([]byte, error) {
	data, err := j.JSONPb.Marshal(v)
	if err != nil {
		return nil, err
	}
	out := bytes.NewBuffer(make([]byte, 0, len(data)))
	err = json.Compact(out, data)
	return out.Bytes(), err
}

// StreamContentType implements runtime.StreamContentType.
func (jsonLines) StreamContentType(any) string { return streamType }

func newMux(door *frontDoor) *runtime.ServeMux {
	none := func(string) (string, bool) { return "", false }
	return runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, &answers),
		// No header becomes gRPC metadata: nothing that a caller writes may look like something that a service wrote.
		runtime.WithIncomingHeaderMatcher(none),
		runtime.WithOutgoingHeaderMatcher(none),
		runtime.WithOutgoingTrailerMatcher(none),
		runtime.WithDisableHTTPMethodOverride(),
		runtime.WithDisablePathLengthFallback(),
		runtime.WithMiddlewares(door.aroundCall),
		runtime.WithErrorHandler(handleError),
		runtime.WithStreamErrorHandler(func(ctx context.Context, err error) *status.Status { return explain(ctx, err) }),
		runtime.WithRoutingErrorHandler(handleRoutingError),
	)
}

func handleError(ctx context.Context, mux *runtime.ServeMux, m runtime.Marshaler, w http.ResponseWriter, r *http.Request, err error) {
	if own := (*runtime.HTTPStatusError)(nil); errors.As(err, &own) {
		runtime.DefaultHTTPErrorHandler(ctx, mux, m, w, r, err)
		return
	}
	st := explain(ctx, err)
	// The generated code keeps only the text of a body's error.
	if st.Code() == codes.InvalidArgument && strings.Contains(st.Message(), "http: request body too large") {
		tooLarge := status.Errorf(codes.InvalidArgument, "the body is larger than %d bytes", MaxBody)
		runtime.DefaultHTTPErrorHandler(ctx, mux, m, w, r, &runtime.HTTPStatusError{HTTPStatus: http.StatusRequestEntityTooLarge, Err: tooLarge})
		return
	}
	runtime.DefaultHTTPErrorHandler(ctx, mux, m, w, r, st.Err())
}

// explain names the backend that is away or late; other errors speak for themselves.
func explain(ctx context.Context, err error) *status.Status {
	st := status.Convert(err)
	method, _ := runtime.RPCMethod(ctx)
	backend := backendOf(method)
	switch st.Code() {
	case codes.Unavailable:
		return status.Newf(codes.Unavailable, "the %s is not available: %s", backend, st.Message())
	case codes.DeadlineExceeded:
		return status.Newf(codes.DeadlineExceeded, "the %s did not answer within %v", backend, CallTimeout)
	}
	return st
}

// backendOf returns "registry" for /appswitch.registry.v1.RegistryService/ListNodes.
func backendOf(method string) string {
	parts := strings.Split(method, ".")
	switch {
	case len(parts) < 3:
		return "backend"
	case parts[1] == "nodeagent":
		return "node agent"
	}
	return parts[1]
}

func handleRoutingError(ctx context.Context, mux *runtime.ServeMux, m runtime.Marshaler, w http.ResponseWriter, r *http.Request, code int) {
	err := &runtime.HTTPStatusError{HTTPStatus: code}
	switch code {
	case http.StatusNotFound:
		err.Err = status.Errorf(codes.NotFound, "there is nothing at %q: GET /openapi.json lists the API", r.URL.Path)
	case http.StatusMethodNotAllowed:
		err.Err = status.Errorf(codes.Unimplemented, "%s is not possible at %q: GET /openapi.json lists the API", r.Method, r.URL.Path)
	default:
		err.Err = status.Errorf(codes.InvalidArgument, "the path %q is malformed", r.URL.Path)
	}
	runtime.HTTPError(ctx, mux, m, w, r, err)
}

// writeStatus answers with a google.rpc.Status where no generated handler is at hand.
func writeStatus(w http.ResponseWriter, code int, st *status.Status) {
	body, err := answers.Marshal(st.Proto())
	if err != nil { // can't be: the messages are our own
		body = []byte(`{"code":13,"message":"internal error","details":[]}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(body)
}
