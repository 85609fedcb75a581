package identity

import (
	"maps"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	optionsv1 "github.com/turumba/turumba/gen/turumba/options/v1"
	"github.com/turumba/turumba/kit/clock"
)

// TestBudgets walks the contract: every RPC that anybody can call, or that mails somebody,
// has a budget; nothing else has one by mistake.
func TestBudgets(t *testing.T) {
	t.Parallel()
	rest := maps.Clone(budgets)
	services := accountv1.File_turumba_account_v1_auth_service_proto.Services()
	check := func(services protoreflect.ServiceDescriptors) {
		for i := range services.Len() {
			for j := range services.Get(i).Methods().Len() {
				md := services.Get(i).Methods().Get(j)
				rule, _ := proto.GetExtension(md.Options(), optionsv1.E_Auth).(*optionsv1.Auth)
				method := "/" + string(services.Get(i).FullName()) + "/" + string(md.Name())
				if rule.GetPublic() || rule.GetSendsMail() {
					require.NoError(t, (&Budgets{}).Covers(method, rule), method)
				}
				delete(rest, method)
			}
		}
	}
	check(services)
	check(accountv1.File_turumba_account_v1_invitation_service_proto.Services())
	require.Empty(t, rest, "of no RPC")

	names := map[string]string{}
	for method, b := range budgets {
		for _, l := range b.limits {
			require.Empty(t, names[l.what], "%s and %s share a limit", method, names[l.what])
			names[l.what] = method
		}
	}
	require.Error(t, (&Budgets{}).Covers("/x.Y/Z", &optionsv1.Auth{}))
	require.Error(t, (&Budgets{}).Covers(accountv1.AuthService_Login_FullMethodName, &optionsv1.Auth{SendsMail: true}))
	require.Error(t, (&Budgets{}).Covers(accountv1.AuthService_Register_FullMethodName, &optionsv1.Auth{}))
}

// TestMailsNeedARule: a call of an RPC that does not say sends_mail cannot queue a mail.
func TestMailsNeedARule(t *testing.T) {
	t.Parallel()
	p := &Postbox{}
	require.ErrorIs(t, p.Queue(t.Context(), nil, "a@example.org", KnownLetter()), errNoMailing)
	b := NewBudgets(Limits{}, Devices{Clock: clock.System()}, Places{})
	ctx, _, err := b.Admit(t.Context(), accountv1.AuthService_GetJwks_FullMethodName, &accountv1.GetJwksRequest{})
	require.NoError(t, err)
	require.ErrorIs(t, p.Queue(ctx, nil, "a@example.org", KnownLetter()), errNoMailing)
}
