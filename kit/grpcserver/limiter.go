package grpcserver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	optionsv1 "github.com/turumba/turumba/gen/turumba/options/v1"
	"github.com/turumba/turumba/kit/apierr"
)

// Limiter holds calls to their budgets before their handlers run (ADR 0050).
type Limiter interface {
	// Covers reports what is missing: a public RPC, and one that mails somebody, has a
	// budget, or a reason why it needs none.
	Covers(method string, rule *optionsv1.Auth) error
	// Admit counts a call, or refuses it. done, if there is one, is told how the call
	// ended.
	Admit(ctx context.Context, method string, req proto.Message) (admitted context.Context, done func(context.Context, error) error, err error)
}

// Unlimited are the public RPCs of a service that need no budget, each with the reason.
type Unlimited map[string]string

// Covers implements Limiter.
func (u Unlimited) Covers(method string, _ *optionsv1.Auth) error {
	if u[method] == "" {
		return errors.New("it has no budget")
	}
	return nil
}

// Admit implements Limiter.
func (u Unlimited) Admit(ctx context.Context, _ string, _ proto.Message) (context.Context, func(context.Context, error) error, error) {
	return ctx, nil, nil
}

// uncovered are the RPCs that anybody can call, or that mail somebody, and that nothing
// limits.
func (s *Server) uncovered(rules map[string]*rule) (problems []error) {
	limiter := s.cfg.Limiter
	if limiter == nil {
		limiter = Unlimited{}
	}
	for _, method := range slices.Sorted(maps.Keys(rules)) {
		rule := rules[method].auth
		if !rule.GetPublic() && !rule.GetSendsMail() {
			continue
		}
		if err := limiter.Covers(method, rule); err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", shortName(method), err))
		}
	}
	return problems
}

// limitUnary holds a call to its budget.
func (s *Server) limitUnary(ctx context.Context, c *call, req any) (resp any, err error) {
	if s.cfg.Limiter == nil {
		return c.next(ctx, req)
	}
	m, ok := req.(proto.Message)
	if !ok {
		return nil, apierr.Internal(fmt.Errorf("%T is not a message", req))
	}
	ctx, done, err := s.cfg.Limiter.Admit(ctx, c.method, m)
	if err != nil {
		return nil, err
	}
	if done == nil {
		return c.next(ctx, req)
	}
	err = errPanicked // unless the handler comes to an end
	defer func() {
		if failed := done(ctx, err); failed != nil && err == nil {
			resp, err = nil, failed
		}
	}()
	resp, err = c.next(ctx, req)
	return resp, err
}

var errPanicked = apierr.Internal(errors.New("the handler panicked"))
