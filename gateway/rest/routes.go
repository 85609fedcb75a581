package rest

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	optionsv1 "github.com/turumba/turumba/gen/turumba/options/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/bounds"
)

// Limits of one exchange with a slow client. Routes marked (stream) in the
// contract are free of them: their own idle cap applies.
const (
	readLimit  = 30 * time.Second
	writeLimit = 60 * time.Second
)

// route is what the HTTP side needs to know of one route of the contract.
type route struct {
	rpc      string // full name, as gRPC writes it
	verb     string
	path     string
	segments []string        // of the path; a variable is empty
	names    []string        // of the variables, as many as segments
	params   map[string]bool // query parameters that the request has fields for
	stream   bool
	public   bool                           // nobody is asked for a token
	upload   bool                           // the body comes in pieces, and may take its time
	limit    int64                          // bytes of the body
	body     protoreflect.MessageDescriptor // what the body is; nil where it is no message
	handler  http.Handler                   // set by the router
}

// contractRoutes reads every route from the descriptors.
func contractRoutes() []*route {
	var out []*route
	protoregistry.GlobalFiles.RangeFiles(func(fd protoreflect.FileDescriptor) bool {
		for i := range fd.Services().Len() {
			methods := fd.Services().Get(i).Methods()
			for j := range methods.Len() {
				if r := routeOf(methods.Get(j)); r != nil {
					out = append(out, r)
				}
			}
		}
		return true
	})
	// A word weighs more than a variable: /v1/contacts/export is no contact's id.
	slices.SortStableFunc(out, func(a, b *route) int { return a.unknowns() - b.unknowns() })
	return out
}

// unknowns counts the variable segments of the path.
func (s *route) unknowns() (n int) {
	for _, segment := range s.segments {
		if segment == "" {
			n++
		}
	}
	return n
}

// variables are what a path that fits says.
func (s *route) variables(path string) map[string]string {
	out, i := map[string]string{}, 0
	for segment := range strings.SplitSeq(path[1:], "/") {
		if name := s.names[i]; name != "" {
			out[name] = segment
		}
		i++
	}
	return out
}

// routeOf is the route of an RPC; nil when it has none.
func routeOf(md protoreflect.MethodDescriptor) *route {
	rule, _ := proto.GetExtension(md.Options(), annotations.E_Http).(*annotations.HttpRule)
	verb, path := verbOf(rule)
	if path == "" {
		return nil
	}
	auth, _ := proto.GetExtension(md.Options(), optionsv1.E_Auth).(*optionsv1.Auth)
	r := &route{
		rpc: fmt.Sprintf("/%s/%s", md.Parent().FullName(), md.Name()), verb: verb, path: path, segments: strings.Split(path[1:], "/"),
		params: map[string]bool{}, stream: auth.GetStream(), public: auth.GetPublic(), upload: md.IsStreamingClient(),
	}
	r.limit, r.body = bodyLimit(r, md), bodyOf(rule, md)
	r.names = make([]string, len(r.segments))
	if rule.GetBody() == "" || md.IsStreamingClient() {
		fields := md.Input().Fields()
		if settings := fields.ByName("settings"); md.IsStreamingClient() && settings != nil {
			fields = settings.Message().Fields() // the body is the file
		}
		for i := range fields.Len() {
			r.params[string(fields.Get(i).Name())] = true
		}
	}
	for i, s := range r.segments {
		if strings.HasPrefix(s, "{") {
			r.names[i], r.segments[i] = strings.Trim(s, "{}"), ""
			delete(r.params, r.names[i])
		}
	}
	return r
}

// bodyOf is the message that the body of a route is: the request, or a field of it.
func bodyOf(rule *annotations.HttpRule, md protoreflect.MethodDescriptor) protoreflect.MessageDescriptor {
	switch name := rule.GetBody(); {
	case name == "" || md.IsStreamingClient():
		return nil
	case name == "*":
		return md.Input()
	default:
		return md.Input().Fields().ByName(protoreflect.Name(name)).Message()
	}
}

// bodyLimit is the most bytes of the body of a route: what the contract has room for, and
// for uploads what their service takes, which counts itself.
func bodyLimit(r *route, md protoreflect.MethodDescriptor) int64 {
	switch r.path {
	case importPath:
		return maxUpload
	case messagesPath:
		return maxLines
	}
	limits, err := bounds.Of(md)
	if err != nil {
		return 0 // the service of the RPC does not start, and says why
	}
	return int64(limits.JSON)
}

// routeTo is the route of an RPC.
func routeTo(rpc string) *route {
	routes := contractRoutes()
	return routes[slices.IndexFunc(routes, func(s *route) bool { return s.rpc == rpc })]
}

// routedRPCs are the RPCs of a service that have a route, in the contract's order.
func routedRPCs(service string) []string {
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service))
	sd, ok := d.(protoreflect.ServiceDescriptor)
	if err != nil || !ok {
		return nil
	}
	var out []string
	for i := range sd.Methods().Len() {
		if r := routeOf(sd.Methods().Get(i)); r != nil {
			out = append(out, r.rpc)
		}
	}
	return out
}

func verbOf(rule *annotations.HttpRule) (verb, path string) {
	switch {
	case rule.GetGet() != "":
		return http.MethodGet, rule.GetGet()
	case rule.GetPost() != "":
		return http.MethodPost, rule.GetPost()
	case rule.GetPatch() != "":
		return http.MethodPatch, rule.GetPatch()
	case rule.GetDelete() != "":
		return http.MethodDelete, rule.GetDelete()
	}
	return "", ""
}

// fits reports whether a path is one of the route. What net/http would clean away is
// no value of a variable.
func (s *route) fits(path string) bool {
	rest, more := strings.CutPrefix(path, "/")
	for _, want := range s.segments {
		if !more {
			return false
		}
		var segment string
		segment, rest, more = strings.Cut(rest, "/")
		if want != "" && segment != want || segment == "" || segment == "." || segment == ".." {
			return false
		}
	}
	return !more
}

// noun is the second segment of a path, by which routes are found.
func noun(path string) string {
	_, rest, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	word, _, _ := strings.Cut(rest, "/")
	return word
}

// router finds the route of a request and holds it to what the route says: time
// limits, and no query parameter that the request has no field for. It leads straight
// to the handler of the route.
type router struct {
	now     func() time.Time
	streams *streamGate
	door    *door
	routes  map[string][]*route // by noun
	others  http.Handler        // paths outside the contract, and routes that are served by hand
}

// newRouter leads routes to the transcoder, except those that others has a pattern for.
func newRouter(streams *streamGate, calls *transcoder, others *http.ServeMux) *router {
	now := streams.clock.Now
	t := &router{now: now, streams: streams, door: newDoor(now, calls.conns), routes: map[string][]*route{}, others: others}
	for _, s := range contractRoutes() {
		s.handler = others
		example := &http.Request{Method: s.verb, URL: &url.URL{Path: s.path}}
		_, byHand := others.Handler(example)
		if byHand == "" && calls.handlers[s.rpc] != nil {
			s.handler = calls.handler(s)
		}
		t.routes[noun(s.path)] = append(t.routes[noun(s.path)], s)
	}
	return t
}

// find is the route of a request; nil outside the contract.
func (t *router) find(verb, path string) *route {
	for _, s := range t.routes[noun(path)] {
		if s.verb == verb && s.fits(path) {
			return s
		}
	}
	return nil
}

// methods are those that a path of the contract answers, in alphabetical order; none where it
// is no path of it.
func (t *router) methods(path string) (out []string) {
	if len(path) > 1 {
		path = strings.TrimSuffix(path, "/")
	}
	for _, s := range t.routes[noun(path)] {
		if !s.fits(path) {
			continue
		}
		if out = append(out, s.verb); s.verb == http.MethodGet && !s.stream {
			out = append(out, http.MethodHead)
		}
	}
	if len(out) > 0 {
		out = append(out, http.MethodOptions)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// asGet is a HEAD request as the GET that it asks about, whose answer the server sends without
// its body (RFC 9110, section 9.3.2).
func asGet(r *http.Request) *http.Request {
	get := r.Clone(r.Context())
	get.Method = http.MethodGet
	return get
}

// ServeHTTP implements http.Handler.
func (t *router) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s := t.find(r.Method, r.URL.Path)
	if r.Method == http.MethodHead {
		s = t.find(http.MethodGet, r.URL.Path)
		switch {
		case s != nil && s.stream: // has no end to ask about
			t.refuse(w, r)
			return
		case s != nil:
			r = asGet(r)
		}
	}
	if s == nil || !s.stream {
		// A writer without deadlines (tests) is served without them.
		_ = http.NewResponseController(w).SetWriteDeadline(t.now().Add(writeLimit))
	}
	if s == nil {
		t.others.ServeHTTP(w, r)
		return
	}
	if err := checkParams(s, r.URL.RawQuery); err != nil {
		writeError(w, r, err)
		return
	}
	if err := t.openBody(r, s); err != nil {
		writeError(w, r, err)
		return
	}
	if s.stream {
		t.streams.serve(w, r, s)
		return
	}
	s.handler.ServeHTTP(w, r)
}

// openBody lets the body of a request be read, if there is one, once its caller may make
// the call.
func (t *router) openBody(r *http.Request, s *route) error {
	body, ok := r.Body.(*gatedBody)
	if !ok {
		return nil
	}
	if err := t.door.admit(r, s); err != nil {
		return err
	}
	switch {
	case s.upload:
		body.open(s.limit, uploadLimit, false)
	case s.public:
		body.open(s.limit, slowAfter, true)
	default:
		body.open(s.limit, readLimit, true)
	}
	return nil
}

// refuse answers requests that no route and no page is for.
func (t *router) refuse(w http.ResponseWriter, r *http.Request) {
	methods := t.methods(r.URL.Path)
	if len(methods) == 0 {
		writeError(w, r, errNoRoute)
		return
	}
	w.Header().Set("Allow", strings.Join(methods, ", ")) // RFC 9110, section 15.5.6
	writeError(w, r, notAllowed(r.Method))
}

func checkParams(s *route, query string) error {
	if query == "" {
		return nil
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return apierr.New(errorv1.Reason_REASON_UNKNOWN_PARAMETER, "the query string is malformed")
	}
	for name := range values {
		if !s.params[name] {
			return apierr.New(errorv1.Reason_REASON_UNKNOWN_PARAMETER, "unknown query parameter %q", name)
		}
	}
	return nil
}
