package grpcserver_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	_ "github.com/turumba/turumba/gen/turumba/messaging/v1" // its RPCs
	optionsv1 "github.com/turumba/turumba/gen/turumba/options/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/grpcserver"
)

// logged is what a service logs.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// lines are those that hold all of the texts.
func (l *logged) lines(texts ...string) (out []string) {
	for line := range strings.Lines(l.String()) {
		if !slices.ContainsFunc(texts, func(s string) bool { return !strings.Contains(line, s) }) {
			out = append(out, line)
		}
	}
	return out
}

func (l *logged) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return l
}

// contract are the product's RPCs.
func contract() (all []protoreflect.MethodDescriptor) {
	protoregistry.GlobalFiles.RangeFiles(func(fd protoreflect.FileDescriptor) bool {
		for i := range fd.Services().Len() {
			for j := range fd.Services().Get(i).Methods().Len() {
				if md := fd.Services().Get(i).Methods().Get(j); strings.HasPrefix(string(md.FullName()), "turumba.") {
					all = append(all, md)
				}
			}
		}
		return true
	})
	return all
}

func ruleOf(md protoreflect.MethodDescriptor) *optionsv1.Auth {
	rule, _ := proto.GetExtension(md.Options(), optionsv1.E_Auth).(*optionsv1.Auth)
	return rule
}

// scripted answers every RPC with the status that the call asks for.
type scripted struct {
	mu  sync.Mutex
	say *status.Status
}

func (s *scripted) handle(any, grpc.ServerStream) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.say.Err()
}

func (s *scripted) next(st *status.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.say = st
}

// call makes any RPC and returns how it ended.
func call(ctx context.Context, conn grpc.ClientConnInterface, md protoreflect.MethodDescriptor) error {
	name := fmt.Sprintf("/%s/%s", md.Parent().FullName(), md.Name())
	in, out := dynamicpb.NewMessage(md.Input()), dynamicpb.NewMessage(md.Output())
	if !md.IsStreamingClient() && !md.IsStreamingServer() {
		return conn.Invoke(ctx, name, in, out)
	}
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: md.IsStreamingClient(), ServerStreams: md.IsStreamingServer()}, name)
	if err != nil {
		return err
	}
	if err := s.SendMsg(in); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err := s.CloseSend(); err != nil {
		return err
	}
	return s.RecvMsg(out)
}

// answer is an error as another service, or something in between, may give it.
type answer struct {
	code   codes.Code
	reason errorv1.Reason // unspecified: not by one of ours
	meta   map[string]string
}

func (a answer) status(t *testing.T) *status.Status {
	t.Helper()
	st := status.New(a.code, "told")
	if a.reason == errorv1.Reason_REASON_UNSPECIFIED {
		return st
	}
	st, err := st.WithDetails(&errdetails.ErrorInfo{Reason: apierr.Name(a.reason), Domain: apierr.Domain, Metadata: a.meta})
	require.NoError(t, err)
	return st
}

// answers are all codes without a reason, all reasons, and the refusals of an identity.
func answers() (all []answer) {
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		if code != codes.Unavailable && code != codes.Canceled { // the first is tried again; the second the transport's own
			all = append(all, answer{code: code})
		}
	}
	for n := range errorv1.Reason_name {
		if r := errorv1.Reason(n); r != errorv1.Reason_REASON_UNSPECIFIED && r != errorv1.Reason_REASON_UNAVAILABLE {
			all = append(all, answer{code: apierr.CodeOf(r), reason: r})
		}
	}
	identity := map[string]string{"service_identity": "no"}
	return append(all, answer{codes.Unauthenticated, errorv1.Reason_REASON_UNAUTHENTICATED, identity}, answer{codes.PermissionDenied, errorv1.Reason_REASON_PERMISSION_DENIED, identity})
}

// isOurs says, of an answer to a call of a service, whether it is a fault among
// services. It is written down once more here, by code, as people would say it.
func isOurs(caller string, rule *optionsv1.Auth, a answer) bool {
	switch {
	case a.code == codes.DeadlineExceeded || a.code == codes.Canceled:
		return false
	case a.meta != nil || a.reason == errorv1.Reason_REASON_NOT_IMPLEMENTED:
		return true
	case rule.GetInternal() != nil:
		return !slices.Contains(rule.GetInternal().GetAnswers(), a.reason) || a.reason == errorv1.Reason_REASON_UNSPECIFIED
	case a.reason == errorv1.Reason_REASON_UNSPECIFIED:
		return caller != grpcserver.Gateway || (a.code != codes.ResourceExhausted && a.code != codes.Internal)
	case caller == grpcserver.Gateway:
		return false
	}
	return a.code == codes.InvalidArgument || a.code == codes.Internal
}

// TestOurFaultIsNeverTheCallers goes through every RPC of the contract and every error
// that can come back: what is about the calling service reaches whom it serves as
// UNAVAILABLE, and the operators with its cause.
func TestOurFaultIsNeverTheCallers(t *testing.T) {
	t.Parallel()
	for _, caller := range []string{"messaging", "worker", grpcserver.Gateway} {
		t.Run(caller, func(t *testing.T) {
			t.Parallel()
			script := &scripted{}
			l := listen(t)
			g := grpc.NewServer(grpc.UnknownServiceHandler(script.handle))
			served := make(chan error, 1)
			go func() { served <- g.Serve(l) }()
			log := &logged{}
			node, err := grpcserver.Mesh{ServiceToken: token}.Open(t.Context(), grpcserver.NodeConfig{Service: caller, Calls: true, Logger: log.logger(), Clock: clock.System()})
			require.NoError(t, err)
			conn, err := node.Dial("account", "passthrough:///"+l.Addr().String())
			require.NoError(t, err)
			t.Cleanup(func() {
				node.Close()
				g.Stop()
				require.NoError(t, <-served)
			})
			seen := 0
			for _, md := range contract() {
				rule := ruleOf(md)
				if rule.GetInternal() == nil && seen > 20 && caller != grpcserver.Gateway && len(md.Name())%4 != 0 {
					continue // user RPCs as a service: some will do
				}
				seen++
				for _, a := range answers() {
					script.next(a.status(t))
					err := call(t.Context(), conn, md)
					if isOurs(caller, rule, a) {
						require.Equal(t, codes.Unavailable, status.Code(err), "%s %v: %v", md.FullName(), a, err)
						require.True(t, apierr.HasReason(err, errorv1.Reason_REASON_UNAVAILABLE))
						require.NotContains(t, apierr.From(err).GRPCStatus().Message(), "told", "the cause is for the log")
						continue
					}
					require.Equal(t, a.code, status.Code(err), "%s %v: %v", md.FullName(), a, err)
				}
			}
			require.Greater(t, seen, 20)
			require.NotEmpty(t, log.lines("level=ERROR", "peer=account", "as="+caller, "told"))
		})
	}
}

// TestInProcessFaults: the single process holds to the same rule.
func TestInProcessFaults(t *testing.T) {
	t.Parallel()
	w := start(t)
	for wire, conn := range w.worker {
		_, err := accountv1.NewInternalContextServiceClient(conn).ResolveContext(t.Context(), &accountv1.ResolveContextRequest{})
		require.True(t, apierr.HasReason(err, errorv1.Reason_REASON_UNAVAILABLE), "%s: %v", wire, err)
		_, err = accountv1.NewInternalContextServiceClient(conn).GetSender(t.Context(), &accountv1.GetSenderRequest{AccountId: accountA})
		require.True(t, apierr.HasReason(err, errorv1.Reason_REASON_UNAVAILABLE), "%s: %v", wire, err)
	}
}

// resolver asks the account service who somebody is, as the other services do.
type resolver struct {
	client accountv1.InternalContextServiceClient
}

func (r resolver) Context(ctx context.Context, c auth.Claims) (auth.Caller, error) {
	resp, err := r.client.ResolveContext(ctx, &accountv1.ResolveContextRequest{Issuer: "i", Subject: c.Subject})
	if err != nil {
		return auth.Caller{}, err
	}
	return auth.Caller{UserID: resp.GetUserId(), Memberships: []auth.Membership{{AccountID: accountA, Permissions: []string{"contacts.read"}}}}, nil
}

// identities is an account service that knows the owner and refuses the banned.
type identities struct {
	accountv1.UnimplementedInternalContextServiceServer
}

func (identities) ResolveContext(_ context.Context, req *accountv1.ResolveContextRequest) (*accountv1.ResolveContextResponse, error) {
	switch req.GetSubject() {
	case "owner":
		return &accountv1.ResolveContextResponse{UserId: "u1"}, nil
	case "banned":
		return nil, apierr.Unauthenticated(nil)
	}
	return nil, apierr.NotFound("user")
}

// serve serves until the test ends.
func serve(t *testing.T, l net.Listener, s *grpcserver.Server) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	served := make(chan error, 1)
	go func() { served <- grpcserver.Serve(ctx, l, s) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-served)
	})
}

// two are an account service and a messaging service that asks it.
type two struct {
	log  *logged // of the second
	node *grpcserver.Node
	user accountv1.ContactServiceClient // of the second
}

func startTwo(t *testing.T, account, messaging grpcserver.Mesh, as string, ours, theirs clock.Clock) two {
	t.Helper()
	w := two{log: &logged{}}
	first, err := grpcserver.New(grpcserver.Config{Name: "account", Logger: slog.New(slog.DiscardHandler), Clock: theirs, Verifier: tokens{}, Context: people{}, Mesh: account})
	require.NoError(t, err)
	accountv1.RegisterInternalContextServiceServer(first, identities{})
	l := listen(t)
	serve(t, l, first)
	w.node, err = messaging.Open(t.Context(), grpcserver.NodeConfig{Service: as, Serves: true, Calls: true, Logger: w.log.logger(), Clock: ours})
	require.NoError(t, err)
	t.Cleanup(w.node.Close)
	conn, err := w.node.Dial("account", "dns:///"+l.Addr().String())
	require.NoError(t, err)
	second, err := grpcserver.New(grpcserver.Config{
		Name: "messaging", Logger: w.log.logger(), Clock: clock.System(), Verifier: tokens{}, Context: resolver{accountv1.NewInternalContextServiceClient(conn)}, Mesh: grpcserver.Mesh{ServiceToken: token},
	})
	require.NoError(t, err)
	accountv1.RegisterContactServiceServer(second, &contacts{})
	l = listen(t)
	serve(t, l, second)
	out, err := grpcserver.Mesh{}.Dial("passthrough:///"+l.Addr().String(), "", clock.System())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, out.Close()) })
	w.user = accountv1.NewContactServiceClient(out)
	return w
}

func (w two) get(ctx context.Context, who string) error {
	_, err := w.user.GetContact(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+who), &accountv1.GetContactRequest{ContactId: someID})
	return err
}

// TestRefusedIdentity: a service that another refuses is not ready, says why, and its
// users are told that it is not available.
func TestRefusedIdentity(t *testing.T) {
	t.Parallel()
	now := clock.System()
	late := clock.NewFake(now.Now().Add(2 * time.Minute))
	other := grpcserver.Mesh{ServiceToken: "another token of the same length!!"}
	fine := grpcserver.Mesh{ServiceToken: token}
	for name, c := range map[string]struct {
		account, messaging grpcserver.Mesh
		as                 string
		clock              clock.Clock
		cause              string
	}{
		"another token":        {fine, other, "messaging", now, "different SERVICE_TOKENs"},
		"no token":             {fine, grpcserver.Mesh{}, "messaging", now, "no service identity"},
		"the other has none":   {grpcserver.Mesh{}, fine, "messaging", now, "no service identity"},
		"clocks that differ":   {fine, fine, "messaging", late, "clocks of the two services differ by"},
		"an unknown service":   {fine, fine, "accounting", now, "may not call this RPC"},
		"a name with a period": {fine, fine, "a.b", now, "no service identity"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := startTwo(t, c.account, c.messaging, c.as, c.clock, now)
			for range 5 {
				err := w.get(t.Context(), "owner")
				require.True(t, apierr.HasReason(err, errorv1.Reason_REASON_UNAVAILABLE), "%v", err)
				require.NotContains(t, err.Error(), "TOKEN")
			}
			require.Error(t, w.node.Checks()["account"](t.Context()))
			require.Len(t, w.log.lines("level=ERROR", "refuses the identity", "call=InternalContextService/ResolveContext", c.cause), 1, w.log.String())
			require.Len(t, w.log.lines("level=ERROR", "refuses the identity", "call=MeshService/Prove", c.cause), 1, w.log.String())
		})
	}
	t.Run("fine", func(t *testing.T) {
		t.Parallel()
		w := startTwo(t, fine, fine, "messaging", now, now)
		require.NoError(t, w.get(t.Context(), "owner"))
		require.True(t, apierr.HasReason(w.get(t.Context(), "banned"), errorv1.Reason_REASON_UNAUTHENTICATED), "a person who is refused is the person's own")
		require.True(t, apierr.HasReason(w.get(t.Context(), "stranger"), errorv1.Reason_REASON_PERMISSION_DENIED))
		require.NoError(t, w.node.Checks()["account"](t.Context()))
		require.Empty(t, w.log.lines("level=ERROR"))
	})
}

// TestUnreachableIsTold: why a service cannot be reached, at once and then once a minute,
// and that it can be again.
func TestUnreachableIsTold(t *testing.T) {
	t.Parallel()
	now := clock.NewFake(clock.System().Now())
	log := &logged{}
	l := listen(t)
	addr := l.Addr().String()
	require.NoError(t, l.Close())
	node, err := grpcserver.Mesh{ServiceToken: token}.Open(t.Context(), grpcserver.NodeConfig{Service: grpcserver.Gateway, Calls: true, Logger: log.logger(), Clock: now})
	require.NoError(t, err)
	t.Cleanup(node.Close)
	conn, err := node.Dial("account", "dns:///"+addr)
	require.NoError(t, err)
	login := func() error {
		_, err := accountv1.NewAuthServiceClient(conn).Login(t.Context(), &accountv1.LoginRequest{})
		return err
	}
	for range 10 {
		require.Equal(t, codes.Unavailable, status.Code(login()))
	}
	require.Len(t, log.lines("level=ERROR", "cannot be reached", "peer=account", "connection refused"), 1, log.String())
	now.Advance(59 * time.Second)
	require.Error(t, login())
	require.Len(t, log.lines("cannot be reached"), 1)
	now.Advance(2 * time.Second)
	require.Error(t, login())
	require.Len(t, log.lines("cannot be reached"), 2, "once a minute")
	require.Error(t, node.Checks()["account"](t.Context()))

	l, err = (&net.ListenConfig{}).Listen(t.Context(), "tcp", addr)
	require.NoError(t, err)
	s, err := grpcserver.New(grpcserver.Config{Name: "account", Logger: slog.New(slog.DiscardHandler), Clock: now, Verifier: tokens{}, Context: people{}, Mesh: grpcserver.Mesh{ServiceToken: token}})
	require.NoError(t, err)
	serve(t, l, s)
	require.Eventually(t, func() bool {
		now.Advance(2 * time.Second) // a failed proof counts for a second
		return node.Checks()["account"](t.Context()) == nil
	}, 20*time.Second, 50*time.Millisecond)
	require.Len(t, log.lines("level=INFO", "reached again", "peer=account"), 1)
}

// TestProofIsCheap: /readyz may be asked by anybody as often as they like; a silent peer
// costs it 2 s at most.
func TestProofIsCheap(t *testing.T) {
	t.Parallel()
	w := startTwo(t, grpcserver.Mesh{ServiceToken: token}, grpcserver.Mesh{ServiceToken: token}, "messaging", clock.System(), clock.System())
	check := w.node.Checks()["account"]
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			for range 20 {
				require.NoError(t, check(t.Context()))
			}
		})
	}
	wg.Wait()

	l := listen(t) // it takes connections and says nothing
	t.Cleanup(func() { _ = l.Close() })
	silent, err := w.node.Dial("silent", "dns:///"+l.Addr().String())
	require.NoError(t, err)
	began := clock.System().Now()
	require.Error(t, silent.Ready(t.Context()))
	require.Less(t, clock.System().Now().Sub(began), 5*time.Second)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.Error(t, silent.Ready(ctx))
}

// TestProofNamesTheServices: an address of another service is no proof.
func TestProofNamesTheServices(t *testing.T) {
	t.Parallel()
	w := startTwo(t, grpcserver.Mesh{ServiceToken: token}, grpcserver.Mesh{ServiceToken: token}, "messaging", clock.System(), clock.System())
	s, err := grpcserver.New(grpcserver.Config{Name: "messaging", Logger: slog.New(slog.DiscardHandler), Clock: clock.System(), Verifier: tokens{}, Context: people{}, Mesh: grpcserver.Mesh{ServiceToken: token}})
	require.NoError(t, err)
	l := listen(t)
	serve(t, l, s)
	wrong, err := w.node.Dial("account", "dns:///"+l.Addr().String())
	require.NoError(t, err)
	require.ErrorContains(t, wrong.Ready(t.Context()), "the messaging service answers where the account service is expected")
}

// TestTargets: an address that cannot be one is told at start, by the setting's name.
func TestTargets(t *testing.T) {
	t.Parallel()
	node, err := grpcserver.Mesh{ServiceToken: token}.Open(t.Context(), grpcserver.NodeConfig{Service: "worker", Calls: true, Logger: slog.New(slog.DiscardHandler), Clock: clock.System()})
	require.NoError(t, err)
	t.Cleanup(node.Close)
	for _, target := range []string{"", "account", "dns:///", "dns:///account", ":9000", "dns:///account:", "http://account", "http://account:9000", "nonsense:at:"} {
		_, err := node.Dial("account", target)
		require.ErrorContains(t, err, "ACCOUNT_ADDR: ", target)
	}
	for _, target := range []string{"account:9000", "dns:///account:9000", "passthrough:///127.0.0.1:9000", "dns:///[::1]:9000", "dns://10.0.0.1/account:9000", "unix:/run/account.sock"} {
		_, err := node.Dial("account", target)
		require.NoError(t, err, target)
	}
}
