package golden

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"google.golang.org/grpc"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
)

// World is the running mesh that the cases call.
type World struct {
	// GRPC is a connection that a client outside the mesh would have.
	GRPC map[string]grpc.ClientConnInterface
	// HTTP and BaseURL reach the gateway.
	HTTP    *http.Client
	BaseURL string
	// Tokens are the access tokens by caller name.
	Tokens map[string]string
	// Vars are the ids and names that cases use as ${name}.
	Vars map[string]string
}

// Wires are the two ways into the mesh.
func Wires() []string { return []string{"grpc", "rest"} }

// Run is one file over one wire: it keeps what cases saved.
type Run struct {
	world *World
	wire  string
	vars  map[string]string
	seen  map[string]Answer
}

// NewRun starts a file over a wire. ${wire} and ${unique} differ between runs,
// so that both wires can create the same things.
func NewRun(w *World, wire, unique string) *Run {
	vars := maps.Clone(w.Vars)
	vars["wire"], vars["unique"], vars["code"] = wire, unique+"-"+wire, vars["code_"+wire]
	return &Run{world: w, wire: wire, vars: vars, seen: map[string]Answer{}}
}

// Skips tells whether the case belongs to the other wire only. An RPC without a
// route is internal and has no REST.
func (r *Run) Skips(rpc string, c Case) bool {
	if r.wire == "grpc" {
		return c.Raw != "" || c.Query != ""
	}
	if c.RPC != "" {
		rpc = c.RPC
	}
	md, err := findMethod(rpc)
	if err != nil {
		return false
	}
	_, path := verbOf(ruleOf(md))
	return path == ""
}

// Do makes the call of a case and checks its answer.
func (r *Run) Do(ctx context.Context, rpc string, c Case) error {
	if c.RPC != "" {
		rpc = c.RPC
	}
	md, err := findMethod(rpc)
	if err != nil {
		return err
	}
	body, _ := expand(any(c.Request), r.vars).(map[string]any)
	if body == nil {
		body = map[string]any{}
	}
	in := call{method: md, token: r.token(c.As), key: expand(c.Key, r.vars).(string), body: body, raw: c.Raw, query: c.Query}
	var got Answer
	if r.wire == "grpc" {
		got, err = callGRPC(ctx, r.world.GRPC[string(md.ParentFile().Package())], in)
	} else {
		got, err = callREST(ctx, r.world.HTTP, r.world.BaseURL, in)
	}
	if err != nil {
		return err
	}
	r.seen[c.Name] = got
	if err := r.check(c, got); err != nil {
		return fmt.Errorf("%w\nanswer: %d %s %s %q fields %v body %s", err, got.HTTP, got.Code, got.Reason, got.Detail, got.Fields, canonical(got.Body))
	}
	return r.save(c, got)
}

func (r *Run) token(as string) string {
	if as == "none" {
		return ""
	}
	if as == "" {
		as = "owner"
	}
	if t, ok := r.world.Tokens[as]; ok {
		return t
	}
	return as
}

func (r *Run) check(c Case, got Answer) error {
	if err := r.checkStatus(c, got); err != nil {
		return err
	}
	if got.Reason != c.Want.Reason {
		return fmt.Errorf("reason: want %q, got %q", c.Want.Reason, got.Reason)
	}
	for _, f := range c.Want.Fields {
		if !slices.Contains(got.Fields, f) {
			return fmt.Errorf("the error does not name the field %q", f)
		}
	}
	if want := expand(c.Want.Detail, r.vars).(string); want != "" && !strings.Contains(got.Detail, want) {
		return fmt.Errorf("detail: want it to contain %q", want)
	}
	if c.Want.SameAs != "" && r.seen[c.Want.SameAs].Raw != got.Raw {
		return fmt.Errorf("want the bytes of %q: %s", c.Want.SameAs, r.seen[c.Want.SameAs].Raw)
	}
	if c.Want.Body != nil {
		if err := contains("answer", expand(any(c.Want.Body), r.vars), got.Body); err != nil {
			return err
		}
	}
	for _, path := range c.Want.Absent {
		if v, ok := lookup(got.Body, path); ok && v != "" {
			return fmt.Errorf("%s must not be there, got %v", path, v)
		}
	}
	return nil
}

func (r *Run) checkStatus(c Case, got Answer) error {
	if r.wire == "rest" {
		if got.HTTP != c.Want.HTTP {
			return fmt.Errorf("HTTP status: want %d, got %d", c.Want.HTTP, got.HTTP)
		}
		return nil
	}
	want := c.Want.Code
	switch {
	case want == "" && c.Want.Reason != "":
		want = apierr.CodeOf(errorv1.Reason(errorv1.Reason_value["REASON_"+c.Want.Reason])).String()
	case want == "":
		want = "OK"
	}
	if got.Code != want {
		return fmt.Errorf("gRPC code: want %s, got %s", want, got.Code)
	}
	return nil
}

func (r *Run) save(c Case, got Answer) error {
	for name, path := range c.Save {
		v, ok := lookup(got.Body, path)
		if !ok {
			return fmt.Errorf("save %s: the answer has no %s", name, path)
		}
		r.vars[name] = fmt.Sprint(v)
	}
	return nil
}
