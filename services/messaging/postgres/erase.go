package postgres

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protopath"
	"google.golang.org/protobuf/reflect/protorange"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/kit/pg"
)

const (
	// ended says of a message, as it is stored, that it has its outcome.
	ended = "status IN ('sent', 'delivered', 'permanently_failed', 'cancelled')"
	// lookLimit is how many messages one step of a retention or an erasure looks at.
	lookLimit = 2000
)

// stretch is what a look at messages in the order of their ids found.
type stretch struct {
	hits []string
	last string // where the next look begins, which sees that message again
	end  bool
}

// lookAt looks at the account's messages, the hidden ones too, from position on until a
// time. hit is the condition to find, with arguments from $5 on. However few fit, a look
// reads no more than lookLimit rows, in one partition after the other.
func lookAt(ctx context.Context, tx *pg.Tx, accountID, position string, until time.Time, hit string, args ...any) (stretch, error) {
	s := stretch{last: position}
	// Nothing is sorted: the planner does not know how long a send is, and would read all of it.
	if _, err := tx.Exec(ctx, "SELECT set_config('enable_sort', 'off', true)"); err != nil {
		return s, fmt.Errorf("look at messages: %w", err)
	}
	rows, err := tx.Query(ctx, `
		WITH looked AS (
			SELECT * FROM (
				(SELECT created_at, id, coalesce(`+hit+`, false) AS hit FROM messages
				WHERE account_id = $1 AND direction <> 'none' AND group_message_id IS NULL
					AND created_at >= uuid7_time($2) AND (created_at, id) >= (uuid7_time($2), $2) AND created_at <= $3
				ORDER BY created_at, id LIMIT $4)
				UNION ALL
				(SELECT part.* FROM group_messages g CROSS JOIN LATERAL (
					SELECT created_at, id, coalesce(`+hit+`, false) AS hit FROM messages
					WHERE account_id = $1 AND created_at = g.started_at AND group_message_id = g.id
						AND id BETWEEN greatest(uuid7_first(g.started_at), $2) AND uuid7_last(g.started_at)
					ORDER BY id LIMIT $4) AS part
				WHERE g.account_id = $1 AND g.started_at >= uuid7_time($2) AND g.started_at <= $3
				ORDER BY g.started_at, part.id LIMIT $4)) AS both_kinds
			ORDER BY created_at, id LIMIT $4)
		SELECT id::text, hit, looked FROM (
			SELECT id, hit, count(*) OVER () AS looked, row_number() OVER (ORDER BY id DESC) = 1 AS last FROM looked) AS n
		WHERE hit OR last ORDER BY id`, append([]any{accountID, position, until, lookLimit}, args...)...)
	if err != nil {
		return s, fmt.Errorf("look at messages: %w", err)
	}
	var found bool
	var looked int
	_, err = pgx.ForEachRow(rows, []any{&s.last, &found, &looked}, func() error {
		if found {
			s.hits = append(s.hits, s.last)
		}
		return nil
	})
	if err != nil {
		return s, fmt.Errorf("look at messages: %w", err)
	}
	if _, err := tx.Exec(ctx, "SELECT set_config('enable_sort', 'on', true)"); err != nil {
		return s, fmt.Errorf("look at messages: %w", err)
	}
	s.end = looked < lookLimit
	return s, nil
}

// eraseMessages takes what messages hold of a person out of those that have ended, with
// the address on demand, and returns the ids of those that it changed. The indexes know
// nothing of what changes.
func eraseMessages(ctx context.Context, tx *pg.Tx, accountID string, ids []string, addresses bool) ([]string, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	rows, err := tx.Query(ctx, `
		UPDATE messages SET vars = NULL, subject = NULL, message_body = NULL, html_body = NULL, metadata = NULL, error_text = NULL,
			delivery_address = CASE WHEN $5 THEN '' ELSE delivery_address END, body_erased_at = coalesce(body_erased_at, $6), updated_at = $6
		WHERE id = ANY ($1::uuid[]) AND created_at >= uuid7_time($2) AND created_at <= uuid7_time($3) AND account_id = $4
			AND `+ended+` AND (body_erased_at IS NULL OR $5 AND delivery_address <> '')
		RETURNING id::text`, ids, slices.Min(ids), slices.Max(ids), accountID, addresses, tx.Now)
	if err != nil {
		return nil, fmt.Errorf("erase messages: %w", err)
	}
	erased, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("erase messages: %w", err)
	}
	if addresses {
		if err := eraseAddresses(ctx, tx, accountID, erased); err != nil {
			return nil, err
		}
	}
	_, err = tx.Exec(ctx, "UPDATE message_attempts SET text = '' WHERE account_id = $1 AND message_id = ANY ($2::uuid[]) AND text <> ''", accountID, erased)
	if err != nil {
		return nil, fmt.Errorf("erase what providers said: %w", err)
	}
	return erased, nil
}

// eraseAnswers takes what is erased out of the answers that are kept for idempotency
// keys, and the address out of those that were to an erasure. texts are what such an
// answer holds.
func eraseAnswers(ctx context.Context, tx *pg.Tx, accountID string, texts []string, erased func(*messagingv1.Message) bool) error {
	return tx.RewriteAnswers(ctx, accountID, texts, func(answer proto.Message) bool {
		changed := false
		// The function never fails, so neither does the walk.
		_ = protorange.Range(answer.ProtoReflect(), func(p protopath.Values) error {
			one, ok := p.Index(-1).Value.Interface().(protoreflect.Message)
			if !ok {
				return nil
			}
			switch m := one.Interface().(type) {
			case *messagingv1.Message:
				if erased(m) {
					eraseAnswer(m, tx.Now)
					changed = true
				}
			case *messagingv1.MessageErasure:
				changed = changed || m.GetDeliveryAddress() != ""
				m.DeliveryAddress = ""
			}
			return nil
		})
		return changed
	})
}

// eraseAnswer is eraseMessages for a message as the contract shows it.
func eraseAnswer(m *messagingv1.Message, now time.Time) {
	m.Subject, m.MessageBody, m.DeliveryAddress, m.Metadata, m.Contact = "", "", "", nil, nil
	if m.GetError() != nil {
		m.Error.Message = ""
	}
	for _, a := range m.GetAttemptHistory() {
		a.Message = ""
	}
	m.BodyErasedAt = timestamppb.New(now)
}
