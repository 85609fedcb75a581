package rest

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"mime"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strings"

	"github.com/google/uuid"
	"github.com/klauspost/compress/gzhttp"
	"github.com/prometheus/client_golang/prometheus"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/telemetry"
)

// Config is what the REST face needs.
type Config struct {
	// Backends are the services behind the routes.
	Backends Backends
	// Logger gets panics; requests are logged by the services' chain.
	Logger *slog.Logger
	// CORSOrigins are the origins that browsers may call from; empty means any
	// origin, without credentials.
	CORSOrigins []string
	// TrustedProxies are the addresses whose X-Forwarded-For is believed.
	TrustedProxies []netip.Prefix
	// Registry gets the measurements; nil measures for nobody.
	Registry prometheus.Registerer
	// Tracing makes a span of every request; nil makes none.
	Tracing *telemetry.Tracing
	// Clock drives the time limits of slow clients.
	Clock clock.Clock
	// MaxStreams is how many streams may be open at the same time; 0 is the default.
	MaxStreams int
	// Ready tells whether the process can serve; nil error means ready.
	Ready func(context.Context) error
}

// NewHandler builds the whole REST face.
func NewHandler(ctx context.Context, cfg Config) (http.Handler, error) {
	calls, err := newTranscoder(ctx, cfg.Backends)
	if err != nil {
		return nil, err
	}
	top := byHand(cfg, calls)
	router := newRouter(&streamGate{clock: cfg.Clock, most: int64(cmp.Or(cfg.MaxStreams, MaxStreams))}, calls, top)
	top.HandleFunc("/", router.refuse)

	observe, err := newObserver(cfg)
	if err != nil {
		return nil, err
	}
	compress, err := gzhttp.NewWrapper(gzhttp.MinSize(1024), gzhttp.ContentTypes([]string{"application/json", "text/csv", "text/html", "application/javascript"}))
	if err != nil {
		return nil, err
	}
	h := noStore(router)
	h = trimSlash(h)
	h = newBodies(cfg.Clock.Now).guard(h)
	h = compress(h)
	h = cors(cfg.CORSOrigins, router.methods, h)
	h = requestID(h)
	h = observe.wrap(h)
	h = clientAddress(cfg.TrustedProxies, &untrusted{log: cfg.Logger, clock: cfg.Clock}, h)
	return recovering(cfg.Logger, h), nil
}

// byHand serves the paths outside the contract, and the routes that the transcoder
// cannot carry.
func byHand(cfg Config, calls *transcoder) *http.ServeMux {
	top := http.NewServeMux()
	top.Handle("GET /healthz", healthz())
	top.Handle("GET /readyz", readyz(cfg.Ready))
	docs(top)
	top.Handle("POST "+tokenPath, oauthForm(calls.handler(routeTo(accountv1.AuthService_IssueToken_FullMethodName))))
	files := &csvFiles{
		calls: calls, now: cfg.Clock.Now, contacts: accountv1.NewContactServiceClient(cfg.Backends.Account),
		imports: accountv1.NewContactImportServiceClient(cfg.Backends.Account),
	}
	files.register(top)
	lines := &messageLines{calls: calls, messages: messagingv1.NewMessageServiceClient(cfg.Backends.Messaging)}
	top.HandleFunc("POST "+messagesPath, lines.send)
	(&wayOut{calls: calls, suppressions: messagingv1.NewSuppressionServiceClient(cfg.Backends.Messaging)}).register(top)
	return top
}

// recovering turns a panic into a 500 and a log line.
func recovering(log *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(p)
			}
			log.ErrorContext(r.Context(), "panic in the gateway", "panic", p, "stack", string(debug.Stack()))
			writeError(w, r, apierr.New(errorv1.Reason_REASON_INTERNAL, "internal error"))
		}()
		next.ServeHTTP(w, r)
	})
}

// requestID gives every request an id, the client's if it is a fair one, and
// names it in the answer.
func requestID(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.Header.Get(headerRequestID)
		if !fairID(id) {
			id = uuid.Must(uuid.NewV7()).String()
		}
		ids := []string{id}
		r.Header[headerRequestID], w.Header()[headerRequestID] = ids, ids
		next.ServeHTTP(&bodyless{ResponseWriter: w}, r)
	})
}

func fairID(id string) bool {
	if id == "" || len(id) > 64 {
		return false
	}
	return strings.IndexFunc(id, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.'
	}) < 0
}

// trimSlash accepts a trailing slash on collections: /v1/contacts/ is the list.
func trimSlash(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p := r.URL.Path; len(p) > 1 && strings.HasPrefix(p, "/v1/") && strings.HasSuffix(p, "/") && !strings.HasSuffix(p, "//") {
			r.URL.Path = p[:len(p)-1]
			r.URL.RawPath = strings.TrimSuffix(r.URL.RawPath, "/")
		}
		next.ServeHTTP(w, r)
	})
}

// mergePatch is what our PATCH does (RFC 7396), for clients that say so.
const mergePatch = "application/merge-patch+json"

// checkMediaType asks a body to be JSON; no Content-Type at all is taken as JSON.
func checkMediaType(r *http.Request) error {
	ct := r.Header.Get("Content-Type")
	if ct == "" || r.ContentLength == 0 {
		return nil
	}
	mt, _, err := mime.ParseMediaType(ct)
	if err != nil || mt != "application/json" && (mt != mergePatch || r.Method != http.MethodPatch) {
		return apierr.New(errorv1.Reason_REASON_UNSUPPORTED_MEDIA_TYPE, "the body must be application/json")
	}
	return nil
}

// bodyless drops the body that the transcoder writes after a 204.
type bodyless struct {
	http.ResponseWriter
	noContent bool
}

// WriteHeader notes a status that has no body.
func (b *bodyless) WriteHeader(code int) {
	if code == http.StatusNoContent {
		b.noContent = true
		b.Header().Del("Content-Type")
		b.Header().Del("Content-Length")
	}
	b.ResponseWriter.WriteHeader(code)
}

// Write sends the body unless the status has none.
func (b *bodyless) Write(p []byte) (int, error) {
	if b.noContent {
		return len(p), nil
	}
	return b.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach the connection (flush, deadlines).
func (b *bodyless) Unwrap() http.ResponseWriter { return b.ResponseWriter }

// Flush implements http.Flusher, which what compresses asks for and would not find below.
func (b *bodyless) Flush() {
	_ = http.NewResponseController(b.ResponseWriter).Flush() // the client went away; the next write tells
}
