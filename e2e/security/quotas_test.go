package security_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/e2e/wire"
	"github.com/turumba/turumba/e2e/world"
)

const exceeded = "QUOTA_EXCEEDED"

// quotaLimit is every quota of the accounts of quotas.
const quotaLimit = 6

// limited is an account at its quotas, over one wire.
type limited struct {
	w             *world.World
	s             *suite
	over          string
	name, account string
	channel       string
}

// quotas is S-110: who tries twice the limit gets exactly the limit, one by one and all
// at once, and what is refused as a whole counts nothing.
func quotas(t *testing.T, w *world.World) {
	t.Helper()
	s := report.suite("quotas")
	for _, over := range wire.All() {
		l := newLimited(t, w, s, over)
		l.channels(t)
		l.contacts(t)
		l.messages(t)
		l.campaigns(t)
	}
	s.coverage = "S-110, 4 quotas, 2 wires"
}

// newLimited makes an account and gives it its quotas before anybody is in it.
func newLimited(t *testing.T, w *world.World, s *suite, over string) *limited {
	t.Helper()
	l := &limited{w: w, s: s, over: over, name: "quota_" + over}
	w.Person(t, l.name)
	made := l.do(t, "turumba.account.v1.AccountService/CreateAccount", "", map[string]any{"name": "Limited"})
	require.Empty(t, made.Reason, made.Detail)
	l.account = text(made, "id")
	set := l.as(t, "operator", "turumba.account.v1.OperatorService/UpdateAccountQuotas", "", map[string]any{
		"account_id": l.account, "messages_per_day": quotaLimit, "recipients_per_campaign": quotaLimit, "contacts": quotaLimit, "channels": quotaLimit,
	})
	require.Empty(t, set.Reason, set.Detail)
	return l
}

func text(a wire.Answer, field string) string {
	body, _ := a.Body.(map[string]any)
	v, _ := body[field].(string)
	return v
}

func (l *limited) do(t *testing.T, rpc, key string, body map[string]any) wire.Answer {
	t.Helper()
	return l.as(t, l.name, rpc, key, body)
}

func (l *limited) as(t *testing.T, name, rpc, key string, body map[string]any) wire.Answer {
	t.Helper()
	md, err := wire.FindMethod(rpc)
	require.NoError(t, err)
	got, err := l.w.Do(t.Context(), l.over, wire.Call{Method: md, Token: l.w.Token(name), Key: key, Body: body})
	require.NoError(t, err)
	return got
}

// exceeds checks that a call is refused by a quota, with the status of that.
func (l *limited) exceeds(t *testing.T, got wire.Answer, what string) {
	t.Helper()
	ok := got.Reason == exceeded && (got.HTTP == 429 || got.Code == "ResourceExhausted")
	l.s.check(t, ok, "S-110 %s over %s: %d %s %s %s", what, l.over, got.HTTP, got.Code, got.Reason, got.Detail)
}

// attempt makes twice the limit of calls at once; exactly the limit must pass. It
// returns an answer that did.
func (l *limited) attempt(t *testing.T, what string, call func(i int) wire.Answer) (passed wire.Answer) {
	t.Helper()
	var accepted, refused atomic.Int32
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range 2 * quotaLimit {
		wg.Go(func() {
			got := call(i)
			if got.Reason == "" {
				accepted.Add(1)
				mu.Lock()
				passed = got
				mu.Unlock()
				return
			}
			refused.Add(1)
			l.exceeds(t, got, what)
		})
	}
	wg.Wait()
	l.s.check(t, accepted.Load() == quotaLimit && refused.Load() == quotaLimit,
		"S-110 %s over %s: %d accepted and %d refused of twice the limit of %d", what, l.over, accepted.Load(), refused.Load(), quotaLimit)
	return passed
}

// uses checks what the account is told that it has used.
func (l *limited) uses(t *testing.T, quota string, want int) {
	t.Helper()
	got := l.do(t, "turumba.messaging.v1.QuotaService/GetQuotaUsage", "", map[string]any{"account_id": l.account})
	body, _ := got.Body.(map[string]any)
	usage, _ := body[quota].(map[string]any)
	l.s.check(t, fmt.Sprint(usage["used"]) == fmt.Sprint(want), "S-110 %s over %s: want %d used, got %v %s", quota, l.over, want, usage, got.Detail)
}

func (l *limited) channels(t *testing.T) {
	t.Helper()
	l.uses(t, "channels", 0)
	one := l.attempt(t, "channels", func(i int) wire.Answer {
		return l.do(t, "turumba.messaging.v1.ChannelService/CreateChannel", "", map[string]any{
			"name": fmt.Sprint("C", i), "credentials": map[string]any{"smtp": map[string]any{"host": "smtp.quota.example", "from_email": "a@quota.example"}},
		})
	})
	l.channel = text(one, "id")
	l.uses(t, "channels", quotaLimit)
}

func (l *limited) contacts(t *testing.T) {
	t.Helper()
	var batch []any
	for i := range 2 * quotaLimit {
		batch = append(batch, map[string]any{"first_name": fmt.Sprint("B", i)})
	}
	l.exceeds(t, l.do(t, "turumba.account.v1.ContactService/BatchCreateContacts", "", map[string]any{"contacts": batch}), "a batch of contacts")
	l.uses(t, "contacts", 0)
	l.attempt(t, "contacts", func(i int) wire.Answer {
		return l.do(t, "turumba.account.v1.ContactService/CreateContact", "", map[string]any{"first_name": fmt.Sprint("C", i)})
	})
	l.uses(t, "contacts", quotaLimit)
}

func (l *limited) message(i int) map[string]any {
	return map[string]any{"channel_id": l.channel, "delivery_address": fmt.Sprintf("m%d@quota.example", i), "message_body": "x"}
}

func (l *limited) messages(t *testing.T) {
	t.Helper()
	const create = "turumba.messaging.v1.MessageService/CreateMessage"
	var batch, to []any
	for i := range 2 * quotaLimit {
		batch = append(batch, l.message(i))
		to = append(to, map[string]any{"address": fmt.Sprintf("g%d@quota.example", i)})
	}
	l.exceeds(t, l.do(t, "turumba.messaging.v1.MessageService/BatchCreateMessages", "", map[string]any{"messages": batch}), "a batch of messages")
	l.exceeds(t, l.do(t, "turumba.messaging.v1.GroupMessageService/CreateGroupMessage", "", l.campaign(to)), "recipients of a campaign")
	l.uses(t, "messages_per_day", 0)

	key := "quota-" + l.over
	first := l.do(t, create, key, l.message(0))
	l.s.check(t, first.Reason == "", "S-110 a message over %s: %s", l.over, first.Detail)
	again := l.do(t, create, key, l.message(0))
	l.s.check(t, text(first, "id") == text(again, "id"), "S-110 a message again over %s: %s", l.over, again.Detail)
	l.uses(t, "messages_per_day", 1)
	l.exceeds(t, l.do(t, "turumba.messaging.v1.GroupMessageService/CreateGroupMessage", "", l.campaign(to[:quotaLimit])), "a campaign of more than is left")
	l.uses(t, "messages_per_day", 1)
}

// campaign is a group message that starts at once.
func (l *limited) campaign(to []any) map[string]any {
	return map[string]any{"name": "S", "channel_id": l.channel, "message_body": "x", "status": "queued", "recipients": to}
}

// campaigns compete for what the first message left of the day.
func (l *limited) campaigns(t *testing.T) {
	t.Helper()
	var accepted, refused atomic.Int32
	var wg sync.WaitGroup
	for i := range quotaLimit {
		wg.Go(func() {
			got := l.do(t, "turumba.messaging.v1.GroupMessageService/CreateGroupMessage", "", l.campaign([]any{
				map[string]any{"address": fmt.Sprintf("a%d@quota.example", i)}, map[string]any{"address": fmt.Sprintf("b%d@quota.example", i)},
			}))
			if got.Reason == "" {
				accepted.Add(1)
				return
			}
			refused.Add(1)
			l.exceeds(t, got, "campaigns")
		})
	}
	wg.Wait()
	l.s.check(t, accepted.Load() == (quotaLimit-1)/2 && refused.Load() == quotaLimit-accepted.Load(), "S-110 campaigns over %s: %d accepted", l.over, accepted.Load())
	l.uses(t, "messages_per_day", quotaLimit-1)
	l.stream(t)
	l.exceeds(t, l.do(t, "turumba.messaging.v1.MessageService/CreateMessage", "", l.message(2)), "one message more")
	l.uses(t, "messages_per_day", quotaLimit)
}

// stream sends twice the limit where one message is left of the day: that one is
// accepted, each other refused by itself, and the same stream again changes nothing.
func (l *limited) stream(t *testing.T) {
	t.Helper()
	var items []any
	for i := range 2 * quotaLimit {
		items = append(items, map[string]any{"idempotency_key": fmt.Sprint("stream-", l.over, i), "message": l.message(i)})
	}
	for _, want := range []string{"1 0", "0 1"} {
		got := l.do(t, "turumba.messaging.v1.MessageService/SendMessages", "", map[string]any{"account_id": l.account, "items": items})
		body, _ := got.Body.(map[string]any)
		results, _ := body["results"].([]any)
		refused := 0
		for _, r := range results {
			if result, _ := r.(map[string]any); result["code"] == exceeded {
				refused++
			}
		}
		l.s.check(t, fmt.Sprint(body["created_count"], " ", body["replayed_count"]) == want && refused == len(items)-1,
			"S-110 a stream over %s: want %s created and replayed, got %v %s", l.over, want, body, got.Detail)
	}
}
