module appswitch.io/internal

go 1.26.0

require (
	appswitch.io/proto v0.0.0
	google.golang.org/protobuf v1.36.12
)

replace appswitch.io/proto => ../proto
