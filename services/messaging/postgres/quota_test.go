package postgres_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/pg/pgtest"
	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/postgres"
)

// BenchmarkCreateMessages is what a limit costs the messages of one account that come
// from many at once.
func BenchmarkCreateMessages(b *testing.B) {
	d := pgtest.New(b, postgres.Migrations()...)
	work, err := postgres.New(d.Open(b, pg.RoleWorker), make([]byte, 32), func() {})
	require.NoError(b, err)
	require.NoError(b, work.Upkeep(b.Context()))
	s, err := postgres.New(d.Open(b, pg.RoleAPI), make([]byte, 32), func() {})
	require.NoError(b, err)
	for _, c := range []struct {
		name       string
		most, used int64
	}{{"no limit", 0, 0}, {"far from the limit", 1 << 40, 0}, {"near the limit", 1 << 40, 1<<40 - 7_000}} {
		b.Run(c.name, func(b *testing.B) {
			account, q := messaging.NewID(), messaging.Quotas{messaging.QuotaMessages: c.most}
			inAccount := func(do func(ctx context.Context, tx *pg.Tx) error) error {
				return s.DB().InTx(b.Context(), []string{account}, func(tx *pg.Tx) error { return do(b.Context(), tx) })
			}
			require.NoError(b, inAccount(func(ctx context.Context, tx *pg.Tx) error {
				return postgres.MessageQuota(q).Take(ctx, tx, account, c.used)
			}))
			b.SetParallelism(8)
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					err := inAccount(func(ctx context.Context, tx *pg.Tx) error { return s.CreateMessages(ctx, tx, single(account), q) })
					if err != nil && !apierr.HasReason(err, errorv1.Reason_REASON_QUOTA_EXCEEDED) {
						b.Error(err)
					}
				}
			})
		})
	}
}

func single(account string) []*messaging.Message {
	body := "Your code is 1234."
	return []*messaging.Message{{
		AccountID: account, ChannelID: account, ChannelType: messaging.TypeEmail, Direction: messaging.DirectionOutbound,
		Status: messaging.MessageQueued, DeliveryAddress: "a@example.org", Body: &body,
	}}
}
