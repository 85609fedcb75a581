module github.com/turumba/turumba/e2e

go 1.26.0

require (
	github.com/turumba/turumba/gateway v0.0.0-00010101000000-000000000000
	github.com/turumba/turumba/kit v0.0.0-00010101000000-000000000000
	google.golang.org/genproto/googleapis/api v0.0.0-20261026165753-2ffab32bce7e
	google.golang.org/grpc v1.85.0
	google.golang.org/protobuf v1.36.12
	gopkg.in/yaml.v3 v3.0.1
)

require (
	buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go v1.36.12-20260825204119-511051f7f437.1 // indirect
	github.com/google/uuid v1.6.0 // indirect
	github.com/grpc-ecosystem/grpc-gateway/v2 v2.33.0 // indirect
	github.com/klauspost/compress v1.20.3 // indirect
	github.com/kr/pretty v0.3.1 // indirect
	github.com/rogpeppe/go-internal v1.14.1 // indirect
	github.com/turumba/turumba/gen v0.0.0-00010101000000-000000000000 // indirect
	golang.org/x/net v0.61.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/text v0.43.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20261019180522-ce908d29299b // indirect
	gopkg.in/check.v1 v1.0.0-20201130134442-10cb98267c6c // indirect
)

replace github.com/turumba/turumba/gen => ../gen

replace github.com/turumba/turumba/kit => ../kit

replace github.com/turumba/turumba/services/account => ../services/account

replace github.com/turumba/turumba/services/messaging => ../services/messaging

replace github.com/turumba/turumba/worker => ../worker

replace github.com/turumba/turumba/gateway => ../gateway

replace github.com/turumba/turumba/sim => ../sim

replace github.com/turumba/turumba/cmd/turumba => ../cmd/turumba
