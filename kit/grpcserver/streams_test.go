package grpcserver_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/emptypb"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	optionsv1 "github.com/turumba/turumba/gen/turumba/options/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/grpcserver"
	"github.com/turumba/turumba/kit/streams"
)

// streamRPC is one streaming RPC of the contract.
type streamRPC struct {
	method protoreflect.MethodDescriptor
	rule   *optionsv1.Auth
}

func (r streamRPC) path() string {
	return fmt.Sprintf("/%s/%s", r.method.Parent().FullName(), r.method.Name())
}

// reads reports whether the RPC answers with a stream and changes nothing: opening one
// costs a page of a table at least.
func (r streamRPC) reads() bool {
	opts, _ := r.method.Options().(*descriptorpb.MethodOptions)
	return r.method.IsStreamingServer() && opts.GetIdempotencyLevel() == descriptorpb.MethodOptions_NO_SIDE_EFFECTS
}

// streamRPCs are all of the contract.
func streamRPCs(t *testing.T) (out []streamRPC) {
	t.Helper()
	_ = messagingv1.File_turumba_messaging_v1_message_service_proto // is registered
	protoregistry.GlobalFiles.RangeFiles(func(fd protoreflect.FileDescriptor) bool {
		for i := range fd.Services().Len() {
			methods := fd.Services().Get(i).Methods()
			for j := range methods.Len() {
				m := methods.Get(j)
				rule, _ := proto.GetExtension(m.Options(), optionsv1.E_Auth).(*optionsv1.Auth)
				if strings.HasPrefix(string(fd.Package()), "turumba.") && (m.IsStreamingClient() || m.IsStreamingServer()) {
					out = append(out, streamRPC{m, rule})
				}
			}
		}
		return true
	})
	require.NotEmpty(t, out)
	return out
}

// TestStreamsAreNamedByTheirEnd: what ends when the server stops goes by the name of the
// RPC. A streaming RPC of another name needs a word here, and in drain.go if it watches.
func TestStreamsAreNamedByTheirEnd(t *testing.T) {
	t.Parallel()
	for _, r := range streamRPCs(t) {
		name := string(r.method.Name())
		ends := strings.HasPrefix(name, "Export") || strings.HasPrefix(name, "Import") || strings.HasPrefix(name, "Send") || name == "StreamRecipients"
		require.NotEqual(t, ends, strings.HasPrefix(name, "Watch"), "%s: does it come to an end by itself?", name)
	}
}

// endless serves every streaming RPC of the contract; each call says that it began and
// then does as it is told.
type endless struct {
	began  chan string
	handle func(ss grpc.ServerStream) error
}

// register adds the services of the RPCs, with nothing but their streams.
func (e *endless) register(s *grpcserver.Server, rpcs []streamRPC) {
	of := map[string]*grpc.ServiceDesc{}
	for _, r := range rpcs {
		service := string(r.method.Parent().FullName())
		if of[service] == nil {
			of[service] = &grpc.ServiceDesc{ServiceName: service, HandlerType: (*any)(nil)}
		}
		of[service].Streams = append(of[service].Streams, grpc.StreamDesc{
			StreamName: string(r.method.Name()), ServerStreams: true, ClientStreams: true,
			Handler: func(_ any, ss grpc.ServerStream) error {
				e.began <- r.path()
				return e.handle(ss)
			},
		})
	}
	for _, desc := range of {
		s.RegisterService(desc, e)
	}
}

func untilDone(ss grpc.ServerStream) error {
	<-ss.Context().Done()
	return context.Cause(ss.Context())
}

// crowd are callers by the name in their token, "user" and "account" apart by a slash;
// they hold every permission there, unless changed says otherwise.
type crowd struct {
	permissions []string
	changed     func(*auth.Caller) error
}

func (crowd) Verify(_ context.Context, raw string) (auth.Claims, error) {
	return auth.Claims{Subject: raw, Expiry: clock.System().Now().Add(time.Hour)}, nil
}

func (c crowd) Context(_ context.Context, claims auth.Claims) (auth.Caller, error) {
	user, accounts, _ := strings.Cut(claims.Subject, "/")
	caller := auth.Caller{UserID: user, TokenExpiry: claims.Expiry}
	if key, ok := strings.CutPrefix(user, "key"); ok {
		caller.UserID, caller.APIKeyID = "", key
	}
	for account := range strings.SplitSeq(accounts, "+") {
		caller.Memberships = append(caller.Memberships, auth.Membership{AccountID: account, Permissions: c.permissions})
	}
	if c.changed == nil {
		return caller, nil
	}
	return caller, c.changed(&caller)
}

// serveStreams serves all streaming RPCs of the contract, over the network and in
// process.
func serveStreams(t *testing.T, handle func(ss grpc.ServerStream) error) (e *endless, s *grpcserver.Server, addr string, stop func()) {
	t.Helper()
	return serveStreamsAt(t, clock.System(), handle)
}

func serveStreamsAt(t *testing.T, c clock.Clock, handle func(ss grpc.ServerStream) error) (e *endless, s *grpcserver.Server, addr string, stop func()) {
	t.Helper()
	return serveStreamsTo(t, c, nil, handle)
}

// serveStreamsTo is serveStreamsAt to callers who change.
func serveStreamsTo(t *testing.T, c clock.Clock, changed func(*auth.Caller) error, handle func(ss grpc.ServerStream) error) (e *endless, s *grpcserver.Server, addr string, stop func()) {
	t.Helper()
	rpcs := streamRPCs(t)
	everything := crowd{changed: changed}
	for _, r := range rpcs {
		everything.permissions = append(everything.permissions, r.rule.GetPermission())
	}
	slices.Sort(everything.permissions)
	s, err := grpcserver.New(grpcserver.Config{
		Name: "test", Logger: slog.New(slog.DiscardHandler), Clock: c, Verifier: everything, Context: everything, Mesh: grpcserver.Mesh{ServiceToken: token},
	})
	require.NoError(t, err)
	e = &endless{began: make(chan string, 10_000), handle: handle}
	e.register(s, rpcs)
	require.NoError(t, s.Check())
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	served := make(chan error, 1)
	go func() { served <- grpcserver.Serve(ctx, l, s) }()
	stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-served)
	})
	t.Cleanup(stop)
	return e, s, l.Addr().String(), stop
}

// open begins a stream; result is how it ended, over that it has.
func open(ctx context.Context, t *testing.T, conn grpc.ClientConnInterface, path string) (result <-chan error, over <-chan struct{}) {
	t.Helper()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, path)
	require.NoError(t, err)
	ended, end := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(end)
		for {
			if err := stream.RecvMsg(&emptypb.Empty{}); err != nil {
				ended <- err
				return
			}
		}
	}()
	return ended, end
}

// TestEveryStreamHasItsPlace walks the contract: of each streaming RPC that people call,
// 20 are served to one caller and 200 to one account, and a place comes back when the
// client leaves. Services have as many as they need. Over both wires.
func TestEveryStreamHasItsPlace(t *testing.T) {
	t.Parallel()
	for _, wire := range []string{"network", "inproc"} {
		for _, r := range streamRPCs(t) {
			t.Run(wire+r.path(), func(t *testing.T) {
				t.Parallel()
				now := clock.NewFake(clock.System().Now())
				e, s, addr, _ := serveStreamsAt(t, now, untilDone)
				service := ""
				if r.rule.GetInternal() != nil {
					service = r.rule.GetInternal().GetCallers()[0]
				}
				conn := s.Conn(service)
				if wire == "network" {
					c, err := grpcserver.Mesh{ServiceToken: token}.Dial("passthrough:///"+addr, service, clock.System())
					require.NoError(t, err)
					t.Cleanup(func() { require.NoError(t, c.Close()) })
					conn = c
				}
				p := &placed{t: t, e: e, conn: conn, path: r.path()}
				if service != "" {
					for range 2 * streams.PerCaller {
						p.admitted(t.Context())
					}
					return
				}
				leave := p.fill("u0/A", streams.PerCaller)
				p.refused("u0/A")
				p.refused("u0/B")
				for i := 1; i < streams.PerAccount/streams.PerCaller; i++ {
					p.fill(fmt.Sprintf("key%d/A", i), streams.PerCaller)
				}
				p.refused("another/A")
				p.fill("another/A+B", 1) // in B's place
				leave()
				if r.reads() { // only when its time is over
					now.Advance(streams.ReadHold)
				}
				p.returned("another/A")
			})
		}
	}
}

// placed opens streams of one RPC.
type placed struct {
	t    *testing.T
	e    *endless
	conn grpc.ClientConnInterface
	path string
}

func (p *placed) admitted(ctx context.Context) {
	p.t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	result, over := open(ctx, p.t, p.conn, p.path)
	p.t.Cleanup(func() { cancel(); <-over })
	select {
	case <-p.e.began:
	case err := <-result:
		require.NoError(p.t, err)
	}
}

func (p *placed) fill(who string, n int) (leave context.CancelFunc) {
	p.t.Helper()
	ctx, cancel := context.WithCancel(as(p.t.Context(), who))
	for range n {
		p.admitted(ctx)
	}
	return cancel
}

func (p *placed) refused(who string) {
	p.t.Helper()
	result, _ := open(as(p.t.Context(), who), p.t, p.conn, p.path)
	err := <-result
	require.Equal(p.t, codes.ResourceExhausted, status.Code(err), "%v", err)
	require.True(p.t, apierr.HasReason(err, errorv1.Reason_REASON_RATE_LIMITED))
	require.Positive(p.t, apierr.From(err).RetryAfter)
}

// returned waits until a place is free again.
func (p *placed) returned(who string) {
	p.t.Helper()
	require.Eventually(p.t, func() bool {
		ctx, cancel := context.WithCancel(as(p.t.Context(), who))
		_, over := open(ctx, p.t, p.conn, p.path)
		defer func() { cancel(); <-over }()
		select {
		case <-p.e.began:
			return true
		case <-over:
			return false
		}
	}, 10*time.Second, 20*time.Millisecond)
}

const (
	watchPath  = "/turumba.messaging.v1.GroupMessageService/WatchGroupMessage"
	exportPath = "/turumba.account.v1.ContactService/ExportContacts"
	importPath = "/turumba.account.v1.ContactImportService/ImportContacts"
)

func errorOf(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// TestStopEndsStreams: what watches ends at once when the server stops, with a status
// that says so and when to come back; what has an end gets two seconds; nobody is waited
// for longer, a client that reads nothing or sends nothing neither.
func TestStopEndsStreams(t *testing.T) {
	t.Parallel()
	big := &accountv1.ExportContactsResponse{Data: make([]byte, 1<<20)}
	for name, c := range map[string]struct {
		path   string
		handle func(ss grpc.ServerStream) error
		within time.Duration
		want   codes.Code
		cut    bool // there is no way to tell over the network
	}{
		"a watch":         {watchPath, untilDone, 1500 * time.Millisecond, codes.Unavailable, false},
		"an endless file": {exportPath, untilDone, 4 * time.Second, codes.Unavailable, false},
		"a short file": {exportPath, func(ss grpc.ServerStream) error {
			return clock.Sleep(ss.Context(), clock.System(), 500*time.Millisecond)
		}, 2 * time.Second, codes.OK, false},
		"a watch of somebody who does not read": {watchPath, func(ss grpc.ServerStream) error {
			for {
				if err := ss.SendMsg(big); err != nil {
					return err
				}
			}
		}, 5 * time.Second, codes.Unavailable, true},
		"a file that nobody sends": {exportPath, func(ss grpc.ServerStream) error {
			return ss.RecvMsg(&emptypb.Empty{})
		}, 5 * time.Second, codes.Unavailable, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, s, addr, stop := serveStreams(t, c.handle)
			network, err := grpcserver.Mesh{}.Dial("passthrough:///"+addr, "", clock.System())
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, network.Close()) })
			var ends []grpc.ClientStream
			for _, conn := range []grpc.ClientConnInterface{network, s.Conn("")} {
				stream, err := conn.NewStream(as(t.Context(), "u/A"), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, c.path)
				require.NoError(t, err)
				<-e.began
				ends = append(ends, stream)
			}
			began := clock.System().Now()
			stop()
			require.Less(t, clock.System().Now().Sub(began), c.within)
			for _, stream := range ends {
				err := stream.RecvMsg(&emptypb.Empty{})
				for err == nil {
					err = stream.RecvMsg(&emptypb.Empty{})
				}
				require.Equal(t, c.want, status.Code(errorOf(err)), "%v", err)
				if c.want == codes.Unavailable && !c.cut {
					require.Positive(t, apierr.From(err).RetryAfter)
				}
			}
			result, _ := open(as(t.Context(), "u/A"), t, s.Conn(""), c.path)
			require.Equal(t, codes.Unavailable, status.Code(<-result), "a server that stops takes no streams")
		})
	}
}

// TestStopLetsInProcessStreamsEnd: also where the network has nothing to wait for.
func TestStopLetsInProcessStreamsEnd(t *testing.T) {
	t.Parallel()
	e, s, _, stop := serveStreams(t, func(ss grpc.ServerStream) error {
		return clock.Sleep(ss.Context(), clock.System(), 300*time.Millisecond)
	})
	result, _ := open(as(t.Context(), "u/A"), t, s.Conn(""), exportPath)
	<-e.began
	stop()
	require.ErrorIs(t, <-result, io.EOF)
}

// TestStopLeavesOwnServices: what runs in the same process may finish what it does.
func TestStopLeavesOwnServices(t *testing.T) {
	t.Parallel()
	e, s, _, stop := serveStreams(t, untilDone)
	ctx, cancel := context.WithCancel(t.Context())
	result, _ := open(ctx, t, s.Conn("worker"), "/turumba.account.v1.RecipientService/StreamRecipients")
	<-e.began
	stop()
	require.Empty(t, result)
	after, _ := open(ctx, t, s.Conn("worker"), "/turumba.account.v1.RecipientService/StreamRecipients")
	<-e.began
	cancel()
	require.Equal(t, codes.Canceled, status.Code(<-result))
	require.Equal(t, codes.Canceled, status.Code(<-after))
}

// TestStreamsHaveOwnConnections: 1 500 open streams over one client leave unary calls
// alone, and a unary call without a deadline has one.
func TestStreamsHaveOwnConnections(t *testing.T) {
	t.Parallel()
	h := &contacts{}
	s, err := grpcserver.New(grpcserver.Config{
		Name: "test", Logger: slog.New(slog.DiscardHandler), Clock: clock.System(), Verifier: tokens{}, Context: people{}, Mesh: grpcserver.Mesh{ServiceToken: token},
	})
	require.NoError(t, err)
	accountv1.RegisterContactServiceServer(s, h)
	accountv1.RegisterRecipientServiceServer(s, h)
	inner, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	l := &countingListener{Listener: inner}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	served := make(chan error, 1)
	go func() { served <- grpcserver.Serve(ctx, l, s) }()
	conn, err := grpcserver.Mesh{ServiceToken: token}.Dial("passthrough:///"+l.Addr().String(), "worker", clock.System())
	require.NoError(t, err)
	const open = 1500
	recipients := accountv1.NewRecipientServiceClient(conn)
	for range open {
		stream, err := recipients.StreamRecipients(t.Context(), &accountv1.StreamRecipientsRequest{AccountId: accountA, PageSize: 1, Cursor: someID, ContactGroupIds: []string{someID}})
		require.NoError(t, err)
		_, err = stream.Recv()
		require.NoError(t, err)
	}
	call, done := context.WithTimeout(as(t.Context(), "owner"), 5*time.Second)
	defer done()
	_, err = accountv1.NewContactServiceClient(conn).GetContact(call, &accountv1.GetContactRequest{ContactId: someID})
	require.NoError(t, err)
	require.LessOrEqual(t, l.n.Load(), int64(7), "connections: one of calls, six of 256 streams")
	require.NoError(t, conn.Close())
	cancel()
	require.NoError(t, <-served)
}

type countingListener struct {
	net.Listener
	n atomic.Int64
}

func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.n.Add(1)
	}
	return c, err
}

// TestNoStreamsWithoutChain: what is served without the chain has no streams.
func TestNoStreamsWithoutChain(t *testing.T) {
	t.Parallel()
	_, _, addr, _ := serveStreams(t, untilDone)
	conn, err := grpcserver.Mesh{}.Dial("passthrough:///"+addr, "", clock.System())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	watch, err := grpc_health_v1.NewHealthClient(conn).Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	require.NoError(t, err)
	_, err = watch.Recv()
	require.Equal(t, codes.Unimplemented, status.Code(err), "%v", err)
}
