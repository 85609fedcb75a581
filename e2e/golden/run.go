package golden

import (
	"context"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
	"strings"

	"github.com/turumba/turumba/e2e/wire"
	"github.com/turumba/turumba/e2e/world"
	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
)

// Run is one file over one wire: it keeps what cases saved.
type Run struct {
	world    *world.World
	document *wire.Document
	over     string
	vars     map[string]string
	seen     map[string]wire.Answer
}

// NewRun starts a file over a wire. ${wire}, ${unique} and ${digits}, seven of them, differ
// between runs, so that both wires can create the same things; ${name} is also ${name_wire}.
// Every REST answer is held to the OpenAPI document.
func NewRun(w *world.World, document *wire.Document, over, unique string) *Run {
	vars := maps.Clone(w.Vars)
	vars["wire"], vars["unique"] = over, unique+"-"+over
	vars["digits"] = fmt.Sprintf("%07d", crc32.ChecksumIEEE([]byte(vars["unique"]))%10_000_000)
	for name, v := range w.Vars { // what there is once for each wire
		if own, ok := strings.CutSuffix(name, "_"+over); ok {
			vars[own] = v
		}
	}
	return &Run{world: w, document: document, over: over, vars: vars, seen: map[string]wire.Answer{}}
}

// Skips tells whether the case belongs to the other wire only. An RPC without a
// route is internal and has no REST.
func (r *Run) Skips(rpc string, c Case) bool {
	if r.over == wire.GRPC {
		return c.Raw != "" || c.Query != ""
	}
	if c.RPC != "" {
		rpc = c.RPC
	}
	md, err := wire.FindMethod(rpc)
	if err != nil {
		return false
	}
	_, path := wire.Route(md)
	return path == ""
}

// Do makes the call of a case and checks its answer.
func (r *Run) Do(ctx context.Context, rpc string, c Case) error {
	if c.RPC != "" {
		rpc = c.RPC
	}
	md, err := wire.FindMethod(rpc)
	if err != nil {
		return err
	}
	body, _ := wire.Expand(any(c.Request), r.vars).(map[string]any)
	if body == nil {
		body = map[string]any{}
	}
	got, err := r.world.Do(ctx, r.over, wire.Call{
		Method: md, Token: r.token(c.As), Key: wire.Expand(c.Key, r.vars).(string), Body: body, Raw: c.Raw, Query: c.Query,
	})
	if err != nil {
		return err
	}
	r.seen[c.Name] = got
	if r.over == wire.REST {
		if err := r.document.Check(md, got.HTTP, got.ContentType, got.Sent); err != nil {
			return fmt.Errorf("%w\nanswer: %s", err, got.Sent)
		}
	}
	if err := r.check(c, got); err != nil {
		return fmt.Errorf("%w\nanswer: %d %s %s %q fields %v body %s", err, got.HTTP, got.Code, got.Reason, got.Detail, got.Fields, wire.Canonical(got.Body))
	}
	return r.save(c, got)
}

// token is the token of a caller, who may be there once for each wire; a text in
// the form of a variable is a token that an earlier case saved.
func (r *Run) token(as string) string {
	if own, ok := r.world.Tokens[as+"_"+r.over]; ok {
		return own
	}
	return r.world.Token(wire.Expand(as, r.vars).(string))
}

func (r *Run) check(c Case, got wire.Answer) error {
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
	if want := wire.Expand(c.Want.Detail, r.vars).(string); want != "" && !strings.Contains(got.Detail, want) {
		return fmt.Errorf("detail: want it to contain %q", want)
	}
	if c.Want.SameAs != "" && r.seen[c.Want.SameAs].Raw != got.Raw {
		return fmt.Errorf("want the bytes of %q: %s", c.Want.SameAs, r.seen[c.Want.SameAs].Raw)
	}
	if c.Want.Body != nil {
		if err := contains("answer", wire.Expand(any(c.Want.Body), r.vars), got.Body); err != nil {
			return err
		}
	}
	for _, path := range c.Want.Absent {
		if v, ok := wire.Lookup(got.Body, path); ok && v != "" {
			return fmt.Errorf("%s must not be there, got %v", path, v)
		}
	}
	return nil
}

func (r *Run) checkStatus(c Case, got wire.Answer) error {
	if r.over == wire.REST {
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

func (r *Run) save(c Case, got wire.Answer) error {
	for name, path := range c.Save {
		v, ok := wire.Lookup(got.Body, path)
		if !ok {
			return fmt.Errorf("save %s: the answer has no %s", name, path)
		}
		r.vars[name] = fmt.Sprint(v)
	}
	return nil
}
