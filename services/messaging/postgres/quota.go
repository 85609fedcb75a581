package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/quota"
	"github.com/turumba/turumba/services/messaging"
)

// MessageQuota is the quota of messages of a day with the account's limit.
func MessageQuota(q messaging.Quotas) quota.Quota {
	return quota.Quota{Name: messaging.QuotaMessages, Most: q[messaging.QuotaMessages], Daily: true}
}

// MessagesToday is how many messages count for today, where the account has a limit.
func (s *Store) MessagesToday(ctx context.Context, accountID string) (int64, error) {
	return MessageQuota(nil).Used(ctx, s.db, accountID)
}

// charge counts a send with all its recipients, known or not to get a message, before it
// starts; what was too much is given back when the recipients are written (settleCharge).
func charge(ctx context.Context, tx *pg.Tx, g *messaging.GroupMessage, a messaging.Allowance) error {
	n := int64(g.Addresses) + a.Members
	campaign := quota.Quota{Name: messaging.QuotaRecipients, Most: a.Quotas[messaging.QuotaRecipients]}
	if err := campaign.Check(0, n, tx.Now); err != nil {
		return err
	}
	messages := MessageQuota(a.Quotas)
	if messages.Most == 0 {
		return nil
	}
	_, err := tx.Exec(ctx, "UPDATE group_messages SET charged_count = $3, charged_at = $4 WHERE account_id = $1 AND id = $2", g.AccountID, g.ID, n, tx.Now)
	if err != nil {
		return fmt.Errorf("note what the send is charged: %w", err)
	}
	return messages.Take(ctx, tx, g.AccountID, n)
}

// settleCharge gives back what a send was charged for recipients who got no message, to
// the day that it was charged to. It comes last: others may wait for the count while they
// hold the send's row. Contacts who joined a group after the send was accepted are
// counted now, whatever the limit.
func settleCharge(ctx context.Context, tx *pg.Tx, job FanoutJob) error {
	var back int64
	var at time.Time
	err := tx.QueryRow(ctx, `
		SELECT charged_count - total_recipients, charged_at FROM group_messages
		WHERE account_id = $1 AND id = $2 AND charged_at IS NOT NULL`, job.AccountID, job.GroupMessageID).Scan(&back, &at)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read what the send was charged: %w", err)
	}
	return MessageQuota(nil).Give(ctx, tx, job.AccountID, back, at)
}

// ChannelCount is how many channels the account has.
func (s *Store) ChannelCount(ctx context.Context, accountID string) (int64, error) {
	return pg.Read(ctx, s.db, []string{accountID}, func(rows pgx.Rows) (int64, error) { return pgx.CollectExactlyOneRow(rows, pgx.RowTo[int64]) },
		"SELECT count(*) FROM channels WHERE account_id = $1", accountID)
}

// roomForChannel answers QUOTA_EXCEEDED where the account has as many channels as it may.
// Accounts have few and rarely make one: they are counted, one create at a time.
func roomForChannel(ctx context.Context, tx *pg.Tx, accountID string, q messaging.Quotas) error {
	channels := quota.Quota{Name: messaging.QuotaChannels, Most: q[messaging.QuotaChannels]}
	if channels.Most == 0 {
		return nil
	}
	if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock(hashtextextended('channels of ' || $1, 0))", accountID); err != nil {
		return fmt.Errorf("wait for other creates of channels: %w", err)
	}
	var used int64
	if err := tx.QueryRow(ctx, "SELECT count(*) FROM channels WHERE account_id = $1", accountID).Scan(&used); err != nil {
		return fmt.Errorf("count channels: %w", err)
	}
	return channels.Check(used, 1, tx.Now)
}
