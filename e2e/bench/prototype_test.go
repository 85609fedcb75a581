package bench_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/services/messaging"
	messagingapp "github.com/turumba/turumba/services/messaging/app"
)

// prototype is a group send with as little as can be: it inserts the rows of a chunk,
// updates them, and counts. It works as a superuser, whom no policy holds back, on two
// connections beside the one that inserts; a kill loses what it knows.
type prototype struct {
	b    *testing.B
	pool *pgxpool.Pool
	// insert has the arguments ids, contacts, addresses, values, send and, where messages
	// have a time, that; update ids and the time.
	insert, update string
	timed          bool
}

// ledgerPrototype writes the messages of the product's own schema by the statements of
// decisions E4 and E5: all columns of a sent message, both keys, an insert from unnest, an
// update by `id = ANY` with bounds of created_at.
func ledgerPrototype(b *testing.B, url string) *prototype {
	b.Helper()
	require.NoError(b, messagingapp.Migrate(b.Context(), url))
	p := newPrototype(b, url, fmt.Sprintf(`
		INSERT INTO messages (id, account_id, channel_id, contact_id, group_message_id, template_id, chunk_id, ordinal, status, delivery_address, vars, created_at, updated_at)
		SELECT id, %[1]s, %[1]s, contact, $5, %[1]s, %[1]s, ordinal - 1, 'queued', address, vars, $6, $6
		FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::json[]) WITH ORDINALITY AS n (id, contact, address, vars, ordinal)`, "'"+messaging.NewID()+"'::uuid"),
		`UPDATE messages SET status = 'sent', sent_at = now(), updated_at = now(), attempts = attempts + 1, provider_message_id = id::text
		WHERE id = ANY ($1::uuid[]) AND created_at >= $2 AND created_at <= $2`)
	p.timed = true
	return p
}

// barePrototype writes messages of eight columns with one key.
func barePrototype(b *testing.B, url string) *prototype {
	b.Helper()
	p := newPrototype(b, url, `
		INSERT INTO messages (id, send_id, contact_id, address, vars, status)
		SELECT id, $5, contact, address, vars, 'queued' FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::json[]) AS n (id, contact, address, vars)`,
		"UPDATE messages SET status = 'sent', sent_at = now(), provider_id = id::text WHERE id = ANY ($1::uuid[])")
	p.exec(`
		CREATE TABLE messages (id uuid PRIMARY KEY, send_id uuid NOT NULL, contact_id uuid NOT NULL, address text NOT NULL, vars json,
			status text NOT NULL, provider_id text, sent_at timestamptz) WITH (fillfactor = 50)`)
	return p
}

func newPrototype(b *testing.B, url, insert, update string) *prototype {
	b.Helper()
	p := &prototype{b: b, pool: pool(b, url), insert: insert, update: update}
	p.exec("CREATE TABLE sends (id uuid PRIMARY KEY, sent int NOT NULL DEFAULT 0) WITH (fillfactor = 50)")
	return p
}

func (p *prototype) exec(sql string, args ...any) {
	p.b.Helper()
	_, err := p.pool.Exec(p.b.Context(), sql, args...)
	require.NoError(p.b, err)
}

func (p *prototype) send() int {
	id, at := messaging.NewID(), clock.System().Now().UTC().Truncate(time.Millisecond)
	p.exec("INSERT INTO sends (id) VALUES ($1)", id)
	chunks := make(chan []string, 1000)
	var sending sync.WaitGroup
	for range 2 {
		sending.Go(func() {
			for ids := range chunks {
				p.finish(id, at, ids)
			}
		})
	}
	for from := 0; from < sendSize; from += 500 {
		ids := messaging.IDsAt(at, from, 500)
		p.write(id, at, from, ids)
		chunks <- ids
	}
	close(chunks)
	sending.Wait()
	return sendSize
}

func (p *prototype) write(send string, at time.Time, from int, ids []string) {
	contacts, addresses, vars := make([]string, len(ids)), make([]string, len(ids)), make([]string, len(ids))
	for i := range ids {
		contacts[i], addresses[i] = fmt.Sprintf("00000000-0000-7000-8000-%012d", from+i), fmt.Sprintf("p%d@example.org", from+i)
		vars[i] = `{"FIRST_NAME":"Abebe","LAST_NAME":"Bikila"}`
	}
	p.exec(p.insert, p.at(at, ids, contacts, addresses, vars, send)...)
}

// at are arguments with the time after them, where messages have one.
func (p *prototype) at(at time.Time, args ...any) []any {
	if p.timed {
		return append(args, at)
	}
	return args
}

func (p *prototype) finish(send string, at time.Time, ids []string) {
	ctx := p.b.Context()
	tx, err := p.pool.Begin(ctx)
	require.NoError(p.b, err)
	_, err = tx.Exec(ctx, p.update, p.at(at, ids)...)
	require.NoError(p.b, err)
	_, err = tx.Exec(ctx, "UPDATE sends SET sent = sent + $2 WHERE id = $1", send, len(ids))
	require.NoError(p.b, err)
	require.NoError(p.b, tx.Commit(ctx))
}
