package rest

import (
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
)

// Limits of one exchange with a slow client. Routes marked (stream) in the
// contract are free of them: their own idle cap applies.
const (
	readLimit  = 30 * time.Second
	writeLimit = 60 * time.Second
)

// route is what the HTTP side needs to know of one route of the contract.
type route struct {
	verb     string
	segments []string        // of the path; a variable is empty
	params   map[string]bool // query parameters that the request has fields for
	stream   bool
}

// contractRoutes reads every route from the descriptors.
func contractRoutes() []route {
	var out []route
	protoregistry.GlobalFiles.RangeFiles(func(fd protoreflect.FileDescriptor) bool {
		for i := range fd.Services().Len() {
			methods := fd.Services().Get(i).Methods()
			for j := range methods.Len() {
				if r, ok := routeOf(methods.Get(j)); ok {
					out = append(out, r)
				}
			}
		}
		return true
	})
	// A word weighs more than a variable: /v1/contacts/export is no contact's id.
	slices.SortStableFunc(out, func(a, b route) int { return a.variables() - b.variables() })
	return out
}

// variables counts the variable segments of the path.
func (s route) variables() (n int) {
	for _, segment := range s.segments[1:] {
		if segment == "" {
			n++
		}
	}
	return n
}

func routeOf(md protoreflect.MethodDescriptor) (route, bool) {
	rule, _ := proto.GetExtension(md.Options(), annotations.E_Http).(*annotations.HttpRule)
	verb, path := verbOf(rule)
	if path == "" {
		return route{}, false
	}
	auth, _ := proto.GetExtension(md.Options(), optionsv1.E_Auth).(*optionsv1.Auth)
	r := route{verb: verb, segments: strings.Split(path, "/"), params: map[string]bool{}, stream: auth.GetStream()}
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
			delete(r.params, strings.Trim(s, "{}"))
			r.segments[i] = ""
		}
	}
	return r, true
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

func (s route) matches(verb string, path []string) bool {
	if verb != s.verb || len(path) != len(s.segments) {
		return false
	}
	for i, want := range s.segments {
		if want != "" && want != path[i] {
			return false
		}
	}
	return true
}

// byContract holds each request to what its route says: time limits, and no
// query parameter that the request has no field for. Paths outside the contract
// pass; the transcoder answers them.
func byContract(now func() time.Time, routes []route, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := strings.Split(r.URL.Path, "/")
		i := slices.IndexFunc(routes, func(s route) bool { return s.matches(r.Method, path) })
		if i < 0 || !routes[i].stream {
			rc := http.NewResponseController(w)
			// A writer without deadlines (tests) is served without them.
			_ = rc.SetReadDeadline(now().Add(readLimit))
			_ = rc.SetWriteDeadline(now().Add(writeLimit))
		}
		if i >= 0 {
			if err := checkParams(routes[i], r.URL.RawQuery); err != nil {
				writeError(w, r, err)
				return
			}
		}
		if i >= 0 && routes[i].stream {
			serveStream(w, r, next)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func checkParams(s route, query string) error {
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
