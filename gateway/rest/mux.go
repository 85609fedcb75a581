package rest

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
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

// routes registers every service of the contract that has REST routes.
func routes(ctx context.Context, mux *runtime.ServeMux, b Backends) error {
	for _, register := range []func() error{
		func() error {
			return accountv1.RegisterAuthServiceHandlerClient(ctx, mux, accountv1.NewAuthServiceClient(b.Account))
		},
		func() error {
			return accountv1.RegisterContextServiceHandlerClient(ctx, mux, accountv1.NewContextServiceClient(b.Account))
		},
		func() error {
			return accountv1.RegisterApiKeyServiceHandlerClient(ctx, mux, accountv1.NewApiKeyServiceClient(b.Account))
		},
		func() error {
			return accountv1.RegisterInvitationServiceHandlerClient(ctx, mux, accountv1.NewInvitationServiceClient(b.Account))
		},
		func() error {
			return accountv1.RegisterAuditEventServiceHandlerClient(ctx, mux, accountv1.NewAuditEventServiceClient(b.Account))
		},
		func() error {
			return accountv1.RegisterOperatorServiceHandlerClient(ctx, mux, accountv1.NewOperatorServiceClient(b.Account))
		},
		func() error {
			return accountv1.RegisterUserServiceHandlerClient(ctx, mux, accountv1.NewUserServiceClient(b.Account))
		},
		func() error {
			return accountv1.RegisterAccountServiceHandlerClient(ctx, mux, accountv1.NewAccountServiceClient(b.Account))
		},
		func() error {
			return accountv1.RegisterRoleServiceHandlerClient(ctx, mux, accountv1.NewRoleServiceClient(b.Account))
		},
		func() error {
			return accountv1.RegisterMembershipServiceHandlerClient(ctx, mux, accountv1.NewMembershipServiceClient(b.Account))
		},
		func() error {
			return accountv1.RegisterContactServiceHandlerClient(ctx, mux, accountv1.NewContactServiceClient(b.Account))
		},
		func() error {
			return accountv1.RegisterContactImportServiceHandlerClient(ctx, mux, accountv1.NewContactImportServiceClient(b.Account))
		},
		func() error {
			return accountv1.RegisterContactGroupServiceHandlerClient(ctx, mux, accountv1.NewContactGroupServiceClient(b.Account))
		},
		func() error {
			return messagingv1.RegisterChannelServiceHandlerClient(ctx, mux, messagingv1.NewChannelServiceClient(b.Messaging))
		},
		func() error {
			return messagingv1.RegisterTemplateServiceHandlerClient(ctx, mux, messagingv1.NewTemplateServiceClient(b.Messaging))
		},
		func() error {
			return messagingv1.RegisterGroupMessageServiceHandlerClient(ctx, mux, messagingv1.NewGroupMessageServiceClient(b.Messaging))
		},
		func() error {
			return messagingv1.RegisterMessageServiceHandlerClient(ctx, mux, messagingv1.NewMessageServiceClient(b.Messaging))
		},
		func() error {
			return messagingv1.RegisterSuppressionServiceHandlerClient(ctx, mux, messagingv1.NewSuppressionServiceClient(b.Messaging))
		},
		func() error {
			return messagingv1.RegisterMessageErasureServiceHandlerClient(ctx, mux, messagingv1.NewMessageErasureServiceClient(b.Messaging))
		},
	} {
		if err := register(); err != nil {
			return fmt.Errorf("register routes: %w", err)
		}
	}
	return nil
}

// setQueryParser installs our parser. The transcoder keeps it in a variable of
// its own that all muxes share, so it is set once.
var setQueryParser = sync.OnceFunc(func() { runtime.NewServeMux(runtime.SetQueryParameterParser(queryParser{})) })

// newMux is the transcoder: contract routes in, gRPC calls out.
func newMux() *runtime.ServeMux {
	setQueryParser()
	return runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, &marshaler{}),
		runtime.WithIncomingHeaderMatcher(incomingHeader),
		runtime.WithOutgoingHeaderMatcher(outgoingHeader),
		runtime.WithOutgoingTrailerMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithErrorHandler(handleError),
		runtime.WithStreamErrorHandler(handleStreamError),
		runtime.WithRoutingErrorHandler(handleRoutingError),
		runtime.WithForwardResponseOption(setStatus),
		runtime.WithMiddlewares(jsonOnly),
		// Both rewrite the method of a request, past every rule made for it.
		runtime.WithDisablePathLengthFallback(),
		runtime.WithDisableHTTPMethodOverride(),
	)
}

// incomingHeader lets through the headers that the contract knows; the
// transcoder forwards Authorization by itself. Identity
// headers (x-account-ids, Grpc-Metadata-*) never pass; the chain removes them
// once more.
func incomingHeader(name string) (string, bool) {
	switch http.CanonicalHeaderKey(name) {
	case "Idempotency-Key", headerRequestID, "Traceparent", "Tracestate", "User-Agent", "Accept-Language":
		return strings.ToLower(name), true
	}
	return "", false
}

// outgoingHeader lets out what a client may see of the response metadata.
func outgoingHeader(name string) (string, bool) {
	switch strings.ToLower(name) {
	case "x-request-id":
		return headerRequestID, true
	case "idempotency-replayed":
		return "Idempotency-Replayed", true
	}
	return "", false
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

// jsonOnly refuses bodies that say they are something else.
func jsonOnly(next runtime.HandlerFunc) runtime.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request, pathParams map[string]string) {
		if err := checkMediaType(r); err != nil {
			writeError(w, r, err)
			return
		}
		next(w, r, pathParams)
	}
}
