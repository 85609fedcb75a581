package grpcserver

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/telemetry"
)

// A connection over which nothing came for aliveAfter is asked whether it still carries
// anything, and given up where no answer comes within aliveWithin: its calls end with
// UNAVAILABLE, streams without a deadline too. Servers refuse who asks twice as often.
const (
	aliveAfter  = 20 * time.Second
	aliveWithin = 5 * time.Second
)

const (
	// firstReconnect and maxReconnect are the pauses between attempts to reach a service
	// that is away; calls fail at once meanwhile. gRPC's own grow to two minutes, which a
	// service that is back would go on to be away.
	firstReconnect = 100 * time.Millisecond
	maxReconnect   = 3 * time.Second
	// connectTimeout is how long one attempt may take.
	connectTimeout = 5 * time.Second
)

// dial prepares one connection to a service; Dial tells what of. l judges what comes back.
func (m Mesh) dial(target, service string, c clock.Clock, l *link, more ...grpc.DialOption) (*grpc.ClientConn, error) {
	serviceConfig, err := clientServiceConfig()
	if err != nil {
		return nil, err
	}
	transport, err := m.clientCredentials()
	if err != nil {
		return nil, err
	}
	if transport == nil {
		transport = insecure.NewCredentials()
	}
	opts := []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: aliveAfter, Timeout: aliveWithin}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: firstReconnect, Multiplier: 1.6, Jitter: 0.2, MaxDelay: maxReconnect},
			MinConnectTimeout: connectTimeout,
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16 << 20)),
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			return invoke(traced(ctx), method, req, reply, cc, opts...)
		}),
		grpc.WithStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			return open(traced(ctx), desc, cc, method, opts...)
		}),
	}
	if service != "" {
		opts = append(opts, grpc.WithChainUnaryInterceptor(l.unary), grpc.WithChainStreamInterceptor(l.stream))
	}
	if service != "" && m.ServiceToken != "" {
		opts = append(opts, grpc.WithPerRPCCredentials(serviceCredentials{name: service, token: m.ServiceToken.Reveal(), clock: c}))
	}
	conn, err := grpc.NewClient(target, append(opts, more...)...)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", target, err)
	}
	return conn, nil
}

// traced lets the call carry on the trace of its context, unless it names one itself,
// as a gateway does that forwards a header.
func traced(ctx context.Context) context.Context {
	traceparent := telemetry.Traceparent(ctx)
	if md, _ := metadata.FromOutgoingContext(ctx); traceparent == "" || len(md.Get("traceparent")) > 0 {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "traceparent", traceparent)
}

// clientServiceConfig retries, on UNAVAILABLE, the RPCs that have no side effects; streams
// until their first message came. Writes are the caller's to repeat, with an idempotency key.
func clientServiceConfig() (string, error) {
	type name struct {
		Service string `json:"service"`
		Method  string `json:"method"`
	}
	var reads []name
	protoregistry.GlobalFiles.RangeFiles(func(fd protoreflect.FileDescriptor) bool {
		if !strings.HasPrefix(string(fd.Package()), "turumba.") {
			return true
		}
		for i := range fd.Services().Len() {
			sd := fd.Services().Get(i)
			for j := range sd.Methods().Len() {
				md := sd.Methods().Get(j)
				opts, _ := md.Options().(*descriptorpb.MethodOptions)
				if opts.GetIdempotencyLevel() == descriptorpb.MethodOptions_NO_SIDE_EFFECTS {
					reads = append(reads, name{string(sd.FullName()), string(md.Name())})
				}
			}
		}
		return true
	})
	cfg := map[string]any{"loadBalancingConfig": []any{map[string]any{"round_robin": map[string]any{}}}}
	if len(reads) > 0 {
		cfg["methodConfig"] = []any{map[string]any{
			"name": reads,
			"retryPolicy": map[string]any{
				"maxAttempts": 3, "initialBackoff": "0.05s", "maxBackoff": "0.5s", "backoffMultiplier": 3,
				"retryableStatusCodes": []string{"UNAVAILABLE"},
			},
		}}
	}
	b, err := json.Marshal(cfg)
	if err != nil {
		return "", fmt.Errorf("make the service config: %w", err)
	}
	return string(b), nil
}
