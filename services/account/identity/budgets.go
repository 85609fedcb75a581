package identity

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/proto"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	optionsv1 "github.com/turumba/turumba/gen/turumba/options/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/services/account/postgres"
)

// Purpose is what a mail is for: each has its part of the mail queue.
type Purpose string

// The purposes.
const (
	PurposeRegistration Purpose = "registration"
	PurposeReset        Purpose = "reset"
	PurposeInvitation   Purpose = "invitation"
	PurposeNotice       Purpose = "notice"
)

// Purposes are all of them.
var Purposes = []string{string(PurposeRegistration), string(PurposeReset), string(PurposeInvitation), string(PurposeNotice)}

// budget is what the calls of one RPC may use up.
type budget struct {
	// lane is where its calls wait for a place.
	lane kind
	// limits are by who asks: their side, or the device that they show.
	limits []Limit
	// every says that each call counts, not only the wrong guesses.
	every bool
	// mail is what its mails are for; empty for an RPC that mails nobody.
	mail Purpose
	// free is why it needs no limit.
	free string
}

// guesses are the limits of wrong guesses.
func guesses(what string, short, hour int) []Limit {
	return []Limit{{what + " from a side", short, time.Minute}, {what + " from a side in an hour", hour, time.Hour}}
}

func hourly(what string, most int) []Limit {
	return []Limit{{what + " from a side", most, time.Hour}}
}

// budgets are those of every RPC that anybody can call, or that mails somebody. One without
// is not served (ADR 0050).
var budgets = map[string]budget{
	accountv1.AuthService_Register_FullMethodName:           {lane: registrations, limits: hourly("registration", 30), every: true, mail: PurposeRegistration},
	accountv1.AuthService_VerifyEmail_FullMethodName:        {limits: guesses("verification code", 20, 60)},
	accountv1.AuthService_ResendVerification_FullMethodName: {limits: hourly("new verification code", 30), every: true, mail: PurposeRegistration},
	accountv1.AuthService_Login_FullMethodName:              {lane: logins, limits: guesses("login", 20, 200)},
	accountv1.AuthService_AnswerChallenge_FullMethodName:    {lane: logins, limits: guesses("second factor", 20, 200)},
	accountv1.AuthService_Refresh_FullMethodName:            {limits: guesses("refresh", 120, 1200)},
	accountv1.AuthService_Logout_FullMethodName:             {limits: guesses("logout", 120, 1200), every: true},
	accountv1.AuthService_ForgotPassword_FullMethodName:     {limits: hourly("forgotten password", 30), every: true, mail: PurposeReset},
	accountv1.AuthService_ResetPassword_FullMethodName:      {lane: logins, limits: guesses("reset code", 20, 60), mail: PurposeNotice},
	accountv1.AuthService_IssueToken_FullMethodName:         {limits: guesses("API key", 20, 200)},
	accountv1.AuthService_GetJwks_FullMethodName:            {free: "the keys are in memory"},
	accountv1.AuthService_GetDiscovery_FullMethodName:       {free: "a constant"},

	accountv1.AuthService_ChangePassword_FullMethodName: {lane: logins, limits: hourly("changed password", 60), every: true, mail: PurposeNotice},
	accountv1.AuthService_DisableTotp_FullMethodName:    {limits: hourly("second factor turned off", 60), every: true, mail: PurposeNotice},
	accountv1.AuthService_SetupTotp_FullMethodName:      {lane: logins, limits: guesses("second factor set up", 20, 200)},

	accountv1.InvitationService_PeekInvitation_FullMethodName:   {limits: guesses("invitation", 20, 200)},
	accountv1.InvitationService_AcceptInvitation_FullMethodName: {limits: guesses("accepted invitation", 20, 200)},
	accountv1.InvitationService_CreateInvitation_FullMethodName: {limits: hourly("new invitation", 60), every: true, mail: PurposeInvitation},
	accountv1.InvitationService_ResendInvitation_FullMethodName: {limits: hourly("invitation sent again", 60), every: true, mail: PurposeInvitation},
}

// Asker is who makes a call, as limits see them.
type Asker struct {
	// Side is from where they ask.
	Side auth.Side
	// Device is the one that they showed to know; zero for none.
	Device Device
}

// Knows reports whether the asker's device has logged in with the address before.
func (a Asker) Knows(email string) bool { return a.Device.of(email) }

// who is whom limits count: the device, or the side of who showed none.
func (a Asker) who() Who {
	if a.Device.ID != "" {
		return Who{"device " + a.Device.ID}
	}
	return OfSide(a.Side)
}

// Mark is the digest of whom limits count, as rows keep it.
func (a Asker) Mark() string { return Digest(a.who().key) }

// crowd is whom the lanes count: all devices of an address are one, or who can log in
// would be as many as they like.
func (a Asker) crowd() Who {
	if a.Device.ID != "" {
		return Who{"devices of " + a.Device.Address}
	}
	return OfSide(a.Side)
}

// admission is a call that has its budget.
type admission struct {
	asker Asker
	mail  Purpose
}

type admissionKey struct{}

func admissionOf(ctx context.Context) (admission, bool) {
	a, ok := ctx.Value(admissionKey{}).(admission)
	return a, ok
}

// AskerFrom returns who makes the call.
func AskerFrom(ctx context.Context) Asker {
	if a, ok := admissionOf(ctx); ok {
		return a.asker
	}
	return Asker{Side: auth.ClientFrom(ctx).Side()}
}

// Mailing is a context in which mails of a purpose may be queued: that of a call whose RPC
// says so, and of tests.
func Mailing(ctx context.Context, p Purpose) context.Context {
	a, _ := admissionOf(ctx)
	a.mail = p
	return context.WithValue(ctx, admissionKey{}, a)
}

// Budgets holds the calls of the service to their budgets; it is a grpcserver.Limiter.
type Budgets struct {
	limits  Limits
	devices Devices
	lanes   *lanes
}

// NewBudgets makes the budgets of a service.
func NewBudgets(limits Limits, devices Devices, places Places) *Budgets {
	return &Budgets{limits: limits, devices: devices, lanes: newLanes(devices.Clock, places)}
}

// Covers implements grpcserver.Limiter.
func (b *Budgets) Covers(method string, rule *optionsv1.Auth) error {
	of, ok := budgets[method]
	switch {
	case !ok || (len(of.limits) == 0 && of.free == ""):
		return errors.New("it has no budget")
	case rule.GetSendsMail() != (of.mail != ""):
		return errors.New("its budget and (turumba.options.v1.auth).sends_mail say different things about mails")
	}
	return nil
}

// Admit implements grpcserver.Limiter: the call waits for its place, and is counted by the
// device that its request shows, else by its side.
func (b *Budgets) Admit(ctx context.Context, method string, req proto.Message) (context.Context, func(context.Context, error) error, error) {
	of, ok := budgets[method]
	if !ok || of.free != "" {
		return ctx, nil, nil
	}
	a := Asker{Side: auth.ClientFrom(ctx).Side(), Device: b.devices.shown(req)}
	leave, err := b.lanes.enter(ctx, of.lane, a.crowd())
	if err != nil {
		return nil, nil, err
	}
	limits := make([]postgres.Limit, len(of.limits))
	for i, l := range of.limits {
		limits[i] = l.By(a.who())
	}
	if err := b.take(ctx, limits, of.mail); err != nil {
		b.lanes.over(of.lane, a.crowd())
		return nil, nil, b.lanes.refuse(ctx, a.crowd(), err)
	}
	done := func(ctx context.Context, err error) error {
		counts := of.every || wrong(err)
		defer leave(counts)
		if counts {
			return nil
		}
		return b.limits.Refund(context.WithoutCancel(ctx), limits...)
	}
	return context.WithValue(ctx, admissionKey{}, admission{asker: a, mail: of.mail}), done, nil
}

// take counts a call that has its place.
func (b *Budgets) take(ctx context.Context, limits []postgres.Limit, mail Purpose) error {
	if err := b.limits.Attempt(ctx, limits...); err != nil {
		return err
	}
	return b.room(ctx, mail)
}

// mostMails is how many mails of a purpose may wait. Notices of what somebody did have no
// such limit: they must not keep anybody from changing a password.
const mostMails = 1000

var errManyMails = apierr.New(errorv1.Reason_REASON_UNAVAILABLE, "too many mails wait to be sent").WithRetryAfter(30 * time.Second)

// room makes sure that a mail can be queued, whether or not the call will come to that:
// otherwise the answer would tell.
func (b *Budgets) room(ctx context.Context, p Purpose) error {
	if p == "" || p == PurposeNotice {
		return nil
	}
	full, err := b.limits.Store.MailsWait(ctx, string(p), mostMails)
	if err == nil && full {
		err = errManyMails
	}
	return err
}
