package rest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/kit/bounds"
)

// headerRequestID names the request in answers and logs.
const headerRequestID = "X-Request-Id"

// Backends are the connections to the services; in one process they are the
// in-process ones, which run the same interceptor chain.
type Backends struct {
	// Account serves turumba.account.v1.
	Account grpc.ClientConnInterface
	// Messaging serves turumba.messaging.v1.
	Messaging grpc.ClientConnInterface
}

// transcoder makes gRPC calls of requests, by the handlers that the contract's
// generated code has for its routes. The router leads straight to them: the mux that
// they are registered at would look for the route once more.
type transcoder struct {
	mux      *runtime.ServeMux
	handlers map[string]runtime.HandlerFunc      // by the full name of the RPC
	conns    map[string]grpc.ClientConnInterface // likewise
	pending  pending

	registered []runtime.HandlerFunc // of the service that is being added, in order
	problems   []error
}

// newTranscoder registers every service of the contract that has REST routes.
func newTranscoder(ctx context.Context, b Backends) (*transcoder, error) {
	t := &transcoder{handlers: map[string]runtime.HandlerFunc{}, conns: map[string]grpc.ClientConnInterface{}, pending: pending{room: bounds.NewRoom(bounds.Bytes)}}
	t.mux = newMux(func(next runtime.HandlerFunc) runtime.HandlerFunc {
		t.registered = append(t.registered, next)
		return next
	})
	add(ctx, t, b.Account, &accountv1.AuthService_ServiceDesc, accountv1.NewAuthServiceClient, accountv1.RegisterAuthServiceHandlerClient)
	add(ctx, t, b.Account, &accountv1.ContextService_ServiceDesc, accountv1.NewContextServiceClient, accountv1.RegisterContextServiceHandlerClient)
	add(ctx, t, b.Account, &accountv1.ApiKeyService_ServiceDesc, accountv1.NewApiKeyServiceClient, accountv1.RegisterApiKeyServiceHandlerClient)
	add(ctx, t, b.Account, &accountv1.InvitationService_ServiceDesc, accountv1.NewInvitationServiceClient, accountv1.RegisterInvitationServiceHandlerClient)
	add(ctx, t, b.Account, &accountv1.AuditEventService_ServiceDesc, accountv1.NewAuditEventServiceClient, accountv1.RegisterAuditEventServiceHandlerClient)
	add(ctx, t, b.Account, &accountv1.OperatorService_ServiceDesc, accountv1.NewOperatorServiceClient, accountv1.RegisterOperatorServiceHandlerClient)
	add(ctx, t, b.Account, &accountv1.UserService_ServiceDesc, accountv1.NewUserServiceClient, accountv1.RegisterUserServiceHandlerClient)
	add(ctx, t, b.Account, &accountv1.AccountService_ServiceDesc, accountv1.NewAccountServiceClient, accountv1.RegisterAccountServiceHandlerClient)
	add(ctx, t, b.Account, &accountv1.RoleService_ServiceDesc, accountv1.NewRoleServiceClient, accountv1.RegisterRoleServiceHandlerClient)
	add(ctx, t, b.Account, &accountv1.MembershipService_ServiceDesc, accountv1.NewMembershipServiceClient, accountv1.RegisterMembershipServiceHandlerClient)
	add(ctx, t, b.Account, &accountv1.ContactService_ServiceDesc, accountv1.NewContactServiceClient, accountv1.RegisterContactServiceHandlerClient)
	add(ctx, t, b.Account, &accountv1.ContactImportService_ServiceDesc, accountv1.NewContactImportServiceClient, accountv1.RegisterContactImportServiceHandlerClient)
	add(ctx, t, b.Account, &accountv1.ContactGroupService_ServiceDesc, accountv1.NewContactGroupServiceClient, accountv1.RegisterContactGroupServiceHandlerClient)
	add(ctx, t, b.Messaging, &messagingv1.ChannelService_ServiceDesc, messagingv1.NewChannelServiceClient, messagingv1.RegisterChannelServiceHandlerClient)
	add(ctx, t, b.Messaging, &messagingv1.TemplateService_ServiceDesc, messagingv1.NewTemplateServiceClient, messagingv1.RegisterTemplateServiceHandlerClient)
	add(ctx, t, b.Messaging, &messagingv1.GroupMessageService_ServiceDesc, messagingv1.NewGroupMessageServiceClient, messagingv1.RegisterGroupMessageServiceHandlerClient)
	add(ctx, t, b.Messaging, &messagingv1.MessageService_ServiceDesc, messagingv1.NewMessageServiceClient, messagingv1.RegisterMessageServiceHandlerClient)
	add(ctx, t, b.Messaging, &messagingv1.SuppressionService_ServiceDesc, messagingv1.NewSuppressionServiceClient, messagingv1.RegisterSuppressionServiceHandlerClient)
	add(ctx, t, b.Messaging, &messagingv1.QuotaService_ServiceDesc, messagingv1.NewQuotaServiceClient, messagingv1.RegisterQuotaServiceHandlerClient)
	add(ctx, t, b.Messaging, &messagingv1.MessageErasureService_ServiceDesc, messagingv1.NewMessageErasureServiceClient, messagingv1.RegisterMessageErasureServiceHandlerClient)
	return t, errors.Join(t.problems...)
}

// add registers one service. Its handlers come in the order of its RPCs with a route.
func add[C any](
	ctx context.Context, t *transcoder, conn grpc.ClientConnInterface, desc *grpc.ServiceDesc,
	client func(grpc.ClientConnInterface) C, register func(context.Context, *runtime.ServeMux, C) error,
) {
	t.registered = nil
	if err := register(ctx, t.mux, client(conn)); err != nil {
		t.problems = append(t.problems, fmt.Errorf("register the routes of %s: %w", desc.ServiceName, err))
		return
	}
	rpcs := routedRPCs(desc.ServiceName)
	if len(rpcs) != len(t.registered) {
		t.problems = append(t.problems, fmt.Errorf("%s has %d routes and %d handlers", desc.ServiceName, len(rpcs), len(t.registered)))
		return
	}
	for i, rpc := range rpcs {
		t.handlers[rpc], t.conns[rpc] = t.registered[i], conn
	}
}

// handler serves requests of one route.
func (t *transcoder) handler(s *route) http.Handler {
	handle := t.handlers[s.rpc]
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := readBody(r, s); err != nil {
			writeError(w, r, err)
			return
		}
		call := func(w http.ResponseWriter) { handle(w, told(r.Context(), r), s.variables(r.URL.Path)) }
		if s.verb == http.MethodGet && !s.stream {
			t.pending.serve(w, r, call)
			return
		}
		call(w)
	})
}

// readBody reads the body of a request as far as its route has one.
func readBody(r *http.Request, s *route) error {
	if err := checkMediaType(r); err != nil {
		return err
	}
	if body, ok := r.Body.(*gatedBody); ok && s.body != nil {
		return body.take(r, s.body)
	}
	return nil
}

// annotate is the context of a call that is made by hand for r.
func (t *transcoder) annotate(ctx context.Context, r *http.Request, method string) (context.Context, error) {
	r = told(ctx, r)
	return runtime.AnnotateContext(r.Context(), t.mux, r, method)
}

// setQueryParser installs our parser. The transcoder keeps it in a variable of
// its own that all muxes share, so it is set once.
var setQueryParser = sync.OnceFunc(func() { runtime.NewServeMux(runtime.SetQueryParameterParser(queryParser{})) })

// newMux is what all handlers have in common. Each goes through registered, which is
// the only way to get hold of them.
func newMux(registered runtime.Middleware) *runtime.ServeMux {
	setQueryParser()
	return runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, &restJSON),
		runtime.WithIncomingHeaderMatcher(func(string) (string, bool) { return "", false }), // told has done it
		runtime.WithOutgoingHeaderMatcher(outgoingHeader),
		runtime.WithOutgoingTrailerMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithErrorHandler(handleError),
		runtime.WithStreamErrorHandler(handleStreamError),
		runtime.WithForwardResponseOption(setStatus),
		runtime.WithMiddlewares(registered),
		runtime.WithWriteContentLength(), // or a list goes out in chunks
	)
}

// outgoingHeader lets out what a client may see of the response metadata. The id of
// the request is not among it: the gateway gave it, and has told it.
func outgoingHeader(name string) (string, bool) {
	return "Idempotency-Replayed", name == "idempotency-replayed"
}

// setStatus answers 201 to creates and 204 to calls whose response is empty.
func setStatus(ctx context.Context, w http.ResponseWriter, m proto.Message) error {
	method, _ := runtime.RPCMethod(ctx)
	name := method[strings.LastIndexByte(method, '/')+1:]
	switch {
	case strings.HasPrefix(name, "Create"), strings.HasPrefix(name, "BatchCreate"), strings.HasPrefix(name, "Duplicate"), name == "Register", name == "ResendGroupMessage":
		w.WriteHeader(http.StatusCreated)
	case m != nil && m.ProtoReflect().Descriptor().Fields().Len() == 0:
		w.WriteHeader(http.StatusNoContent)
	}
	return nil
}
