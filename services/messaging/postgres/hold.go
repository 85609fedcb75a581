package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/channel"
)

// Hold says that nothing is handed to a provider, by any worker of the database.
type Hold struct {
	// Reason is who or what asked for it.
	Reason string `json:"reason"`
	// HeldAt is since when.
	HeldAt time.Time `json:"held_at"`
	// Since is set while a release gives up what waited at that time.
	Since *time.Time `json:"since,omitempty"`
}

// notHeld is the condition of every statement that lets messages leave.
const notHeld = "NOT EXISTS (SELECT FROM sending_hold)"

// fanoutHeld is the condition under which no send's recipients are written: as long as
// they are not, the job tells when the send was queued. A release that gives up sends lets
// the recipients of these be written, those of suspended accounts too.
const (
	fanoutHeld   = "EXISTS (SELECT FROM sending_hold WHERE since IS NULL)"
	givenUpSends = "(SELECT group_message_id FROM sending_hold_sends)"
)

// Hold keeps every worker from handing messages to providers, from its next window on. One
// that stands already stays as it is.
func (s *Store) Hold(ctx context.Context, reason string) (*Hold, error) {
	var h *Hold
	err := s.db.InTx(ctx, nil, func(tx *pg.Tx) (err error) {
		if _, err := tx.Exec(ctx, "INSERT INTO sending_hold (reason, held_at) VALUES ($1, $2) ON CONFLICT DO NOTHING", reason, tx.Now); err != nil {
			return fmt.Errorf("hold: %w", err)
		}
		h, err = readHold(ctx, tx)
		return err
	})
	return h, err
}

// HoldAnew is Hold for a worker that starts on a restored backup. A hold that the backup
// brought along tells of another day: it begins anew, unless a release is under way.
func (s *Store) HoldAnew(ctx context.Context, reason string) (*Hold, error) {
	var h *Hold
	err := s.db.InTx(ctx, nil, func(tx *pg.Tx) (err error) {
		_, err = tx.Exec(ctx, `
			INSERT INTO sending_hold AS h (reason, held_at) VALUES ($1, $2)
			ON CONFLICT (only_row) DO UPDATE SET reason = excluded.reason, held_at = excluded.held_at WHERE h.since IS NULL`, reason, tx.Now)
		if err != nil {
			return fmt.Errorf("hold: %w", err)
		}
		h, err = readHold(ctx, tx)
		return err
	})
	return h, err
}

// Held returns the hold that stands, nil if there is none.
func (s *Store) Held(ctx context.Context) (h *Hold, err error) {
	err = s.db.InTx(ctx, nil, func(tx *pg.Tx) (err error) {
		h, err = readHold(ctx, tx)
		return err
	})
	return h, err
}

func readHold(ctx context.Context, tx *pg.Tx) (*Hold, error) {
	rows, err := tx.Query(ctx, "SELECT reason, held_at, since FROM sending_hold")
	if err != nil {
		return nil, fmt.Errorf("read the hold: %w", err)
	}
	return optional(pgx.CollectExactlyOneRow(rows, pgx.RowToAddrOfStructByName[Hold]))
}

// Release ends the hold; what waits is sent.
func (s *Store) Release(ctx context.Context) error {
	return s.db.InTx(ctx, nil, func(tx *pg.Tx) error {
		for _, table := range []string{"sending_hold_sends", "sending_hold"} {
			if _, err := tx.Exec(ctx, "DELETE FROM "+table); err != nil {
				return fmt.Errorf("release: %w", err)
			}
		}
		return nil
	})
}

// errNotHeld refuses to give up what might be on its way.
var errNotHeld = errors.New("nothing is held, so what waits may be on its way to a provider: run turumba hold first, or start with --hold")

// BeginGivingUp notes that what waited at since is given up, and which sends that are whose
// recipients are still to be written. A release that was interrupted keeps its time.
func (s *Store) BeginGivingUp(ctx context.Context, since time.Time) (*Hold, error) {
	var h *Hold
	err := s.db.InTx(ctx, nil, func(tx *pg.Tx) error {
		tag, err := tx.Exec(ctx, "UPDATE sending_hold SET since = coalesce(since, $1)", since)
		if err != nil {
			return fmt.Errorf("begin a release: %w", err)
		}
		if tag.RowsAffected() == 0 {
			return errNotHeld
		}
		if h, err = readHold(ctx, tx); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `
			INSERT INTO sending_hold_sends SELECT group_message_id FROM fanout_jobs WHERE created_at <= $1
			ON CONFLICT DO NOTHING`, h.Since)
		if err != nil {
			return fmt.Errorf("find the sends that are given up: %w", err)
		}
		return nil
	})
	return h, err
}

// Left is what a release waits for.
type Left struct {
	// Sends have recipients that are not written yet: a worker does that.
	Sends int `json:"sends"`
	// InWork are chunks in the hands of a worker, which gives them back.
	InWork int `json:"in_work"`
	// Ready are chunks that can be given up.
	Ready int `json:"ready"`
}

// givenUpChunks is the condition of the chunks that a release gives up.
const givenUpChunks = "(first_created_at <= (SELECT since FROM sending_hold) OR group_message_id IN " + givenUpSends + ")"

// Left tells what is still to be given up.
func (s *Store) Left(ctx context.Context) (l Left, err error) {
	err = s.db.InTx(ctx, nil, func(tx *pg.Tx) error {
		return tx.QueryRow(ctx, `
			SELECT (SELECT count(*) FROM fanout_jobs WHERE group_message_id IN `+givenUpSends+`),
				count(*) FILTER (WHERE state = 'leased'), count(*) FILTER (WHERE state = 'ready') FROM dispatch_chunks WHERE `+givenUpChunks).
			Scan(&l.Sends, &l.InWork, &l.Ready)
	})
	if err != nil {
		return l, fmt.Errorf("count what is left: %w", err)
	}
	return l, nil
}

// Waiting is what a release with a time would give up, and what it would let go on.
type Waiting struct {
	// GivenUp are messages that waited at the time.
	GivenUp int64 `json:"given_up"`
	// Sends are those among them, or to come, whose recipients are not all written yet: how
	// many messages they have is not known before.
	Sends int64 `json:"sends"`
	// Sent are messages that came later.
	Sent int64 `json:"sent"`
}

// Waiting looks at what a release with the time since would do.
func (s *Store) Waiting(ctx context.Context, since time.Time) (w Waiting, err error) {
	err = s.db.InTx(ctx, nil, func(tx *pg.Tx) error {
		return tx.QueryRow(ctx, `
			WITH jobs AS (SELECT group_message_id FROM fanout_jobs WHERE created_at <= $1),
			waiting AS (
				SELECT uuid7_time(m.id) <= $1 OR d.group_message_id IN (SELECT group_message_id FROM jobs) AS before
				FROM dispatch_chunks d, unnest(d.message_ids[d.calling_upto + 1:]) AS m (id)
				UNION ALL
				SELECT uuid7_time(message_id) <= $1 OR group_message_id IN (SELECT group_message_id FROM jobs) FROM message_due)
			SELECT count(*) FILTER (WHERE before), (SELECT count(*) FROM jobs), count(*) FILTER (WHERE before IS NOT TRUE) FROM waiting`, since).
			Scan(&w.GivenUp, &w.Sends, &w.Sent)
	})
	if err != nil {
		return w, fmt.Errorf("count what waits: %w", err)
	}
	return w, nil
}

// GiveUp gives up some of what waits: the messages get the outcome unknown, and their sends
// close. It returns how many they were; at 0 there may be Left what workers have.
func (s *Store) GiveUp(ctx context.Context) (n int, err error) {
	if err := s.hurryGivenUp(ctx); err != nil {
		return 0, err
	}
	var chunks []*Chunk
	err = s.db.InTx(ctx, nil, func(tx *pg.Tx) error {
		rows, err := tx.Query(ctx, "SELECT "+chunkColumns+" FROM dispatch_chunks WHERE state = 'ready' AND "+givenUpChunks+" LIMIT $1", giveUpLimit)
		if err != nil {
			return fmt.Errorf("find chunks to give up: %w", err)
		}
		chunks, err = pgx.CollectRows(rows, pgx.RowToAddrOfStructByName[Chunk])
		return err
	})
	if err != nil {
		return 0, err
	}
	for _, c := range chunks {
		given, err := s.giveUpChunk(ctx, c)
		if err != nil {
			return n, err
		}
		n += given
	}
	return n, nil
}

// giveUpLimit is how many chunks are given up at a time.
const giveUpLimit = 100

// hurryGivenUp makes chunks of the retries that would be given up, whenever they are due.
func (s *Store) hurryGivenUp(ctx context.Context) error {
	err := s.db.InTx(ctx, nil, func(tx *pg.Tx) error {
		_, err := tx.Exec(ctx, `
			UPDATE message_due SET due_at = now()
			WHERE due_at > now() AND (uuid7_time(message_id) <= (SELECT since FROM sending_hold) OR group_message_id IN `+givenUpSends+`)`)
		return err
	})
	if err != nil {
		return fmt.Errorf("hurry retries: %w", err)
	}
	for {
		if n, err := s.ReleaseDue(ctx); n == 0 || err != nil {
			return err
		}
	}
}

// giveUpChunk gives up a ready chunk, or those of its messages that waited at the time.
func (s *Store) giveUpChunk(ctx context.Context, c *Chunk) (n int, err error) {
	err = s.db.InTx(ctx, []string{c.AccountID}, func(tx *pg.Tx) error {
		n = 0
		last, err := takeGivenUp(ctx, tx, c)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil // somebody was faster
		}
		if err != nil {
			return fmt.Errorf("take the chunk: %w", err)
		}
		rows, err := tx.Query(ctx, `
			SELECT id FROM messages
			WHERE id = ANY ($1::uuid[]) AND created_at >= $2 AND created_at <= $3 AND account_id = $4 AND chunk_id = $5 AND status IN ('queued', 'failed')`,
			c.MessageIDs, c.First, last, c.AccountID, c.ID)
		if err != nil {
			return fmt.Errorf("read the messages to give up: %w", err)
		}
		ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return fmt.Errorf("read the messages to give up: %w", err)
		}
		n = len(ids)
		return storeOutcomes(ctx, tx, &pgx.Batch{}, c, givenUp(ids), counts{})
	})
	return n, err
}

// takeGivenUp takes the chunk out of the queue, or leaves in it what was made after the
// time that is given up; last is the newest message that is.
func takeGivenUp(ctx context.Context, tx *pg.Tx, c *Chunk) (last time.Time, err error) {
	var since time.Time
	var ofSend bool
	err = tx.QueryRow(ctx, `
		SELECT h.since, coalesce(d.group_message_id IN `+givenUpSends+`, false) FROM sending_hold h, dispatch_chunks d
		WHERE d.id = $1 AND d.epoch = $2 AND d.state = 'ready' FOR UPDATE OF d`, c.ID, c.Epoch).Scan(&since, &ofSend)
	if err != nil {
		return last, err
	}
	if ofSend || !since.Before(c.Last) {
		_, err = tx.Exec(ctx, "DELETE FROM dispatch_chunks WHERE id = $1", c.ID)
		return c.Last, err
	}
	// The times of messages are whole milliseconds.
	_, err = tx.Exec(ctx, "UPDATE dispatch_chunks SET first_created_at = $2 WHERE id = $1", c.ID, since.Truncate(time.Millisecond).Add(time.Millisecond))
	return since, err
}

// givenUp are the outcomes of messages that may have been sent after a backup.
func givenUp(ids []string) []messaging.Outcome {
	outcomes := make([]messaging.Outcome, len(ids))
	for i, id := range ids {
		outcomes[i] = messaging.Outcome{
			MessageID: id, Status: messaging.MessagePermanentlyFailed, Code: messaging.CodeOutcomeUnknown, Attempt: channel.Unknown.String(), Class: channel.ClassUnknown.String(),
			Text: "a restored backup had this message waiting; it may have been sent after the backup was made", Expiring: true,
		}
	}
	return outcomes
}
