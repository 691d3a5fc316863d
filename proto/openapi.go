// Package proto holds the contracts of AppSwitch: .proto files, what is generated from them (gen), and the REST mapping.
//
// Its one invariant: gen is always what `make generate` makes of the rest. Start reading at appswitch/registry/v1.
package proto

import _ "embed" // for OpenAPI

// OpenAPI describes the REST API, as OpenAPI 2.0 in JSON.
//
//go:embed gen/openapi/appswitch.swagger.json
var OpenAPI []byte
