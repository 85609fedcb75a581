package security_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/e2e/wire"
	"github.com/turumba/turumba/e2e/world"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/pg/embedded"
)

// predicate is the tenant condition as the stores write it.
var predicate = regexp.MustCompile(`\b(WHERE|AND) ((?:[a-z_]+\.)?account_id = (?:ANY ?\(\$\d+(?:::uuid\[\])?\)|\$\d+(?:::uuid)?|scope\.account))`)

// forgetful is a PostgreSQL proxy that takes the tenant condition out of every
// statement on its way, as if the stores' authors had forgotten it.
type forgetful struct {
	listener net.Listener
	server   *pgx.ConnConfig
	rewrote  atomic.Int64
	wg       sync.WaitGroup
}

func newForgetful(t *testing.T, server string) *forgetful {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	cfg, err := pgx.ParseConfig(server)
	require.NoError(t, err)
	p := &forgetful{listener: l, server: cfg}
	p.wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.serve(client) })
		}
	})
	t.Cleanup(func() {
		require.NoError(t, l.Close())
		p.wg.Wait()
	})
	return p
}

// url is where the proxy is reached.
func (p *forgetful) url() string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(p.server.User, p.server.Password), Host: p.listener.Addr().String(), RawQuery: "sslmode=disable"}
	return u.String()
}

func (p *forgetful) serve(client net.Conn) {
	defer func() { _ = client.Close() }() // the other side may be first
	var d net.Dialer
	network, address := pgconn.NetworkAddress(p.server.Host, p.server.Port)
	server, err := d.DialContext(context.Background(), network, address)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }() // the other side may be first
	p.wg.Go(func() {
		_, _ = io.Copy(client, server) // it ends with either connection
		_ = client.Close()
	})
	if err := p.forward(client, server); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
		return
	}
}

// forward copies what the client sends; statements are rewritten.
func (p *forgetful) forward(client io.Reader, server io.Writer) error {
	ours := false
	for asked := true; asked; { // the messages before the session have no type
		head := make([]byte, 8)
		if _, err := io.ReadFull(client, head); err != nil {
			return err
		}
		code := binary.BigEndian.Uint32(head[4:])
		asked = code == 80877103 || code == 80877104 // TLS and GSSAPI requests, which are refused
		rest := make([]byte, binary.BigEndian.Uint32(head)-8)
		if _, err := io.ReadFull(client, rest); err != nil {
			return err
		}
		// The roles of the product lose their conditions; the tests' own statements,
		// which run as the superuser, do not.
		ours = strings.Contains(string(rest), "turumba_api") || strings.Contains(string(rest), "turumba_worker")
		if err := send(server, head, rest); err != nil {
			return err
		}
	}
	for {
		head := make([]byte, 5)
		if _, err := io.ReadFull(client, head); err != nil {
			return err
		}
		body := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
		if _, err := io.ReadFull(client, body); err != nil {
			return err
		}
		if ours && (head[0] == 'P' || head[0] == 'Q') {
			body = p.rewrite(body)
			binary.BigEndian.PutUint32(head[1:], uint32(len(body)+4))
		}
		if err := send(server, head, body); err != nil {
			return err
		}
	}
}

func send(to io.Writer, parts ...[]byte) error {
	_, err := to.Write(slices.Concat(parts...))
	return err
}

func (p *forgetful) rewrite(body []byte) []byte {
	text := string(body)
	if strings.Contains(text, "EXPLAIN") { // it runs nothing
		return body
	}
	p.rewrote.Add(int64(len(predicate.FindAllStringIndex(text, -1))))
	return []byte(predicate.ReplaceAllString(text, "$1 ($2 OR true)"))
}

// TestSecondNet runs the whole mesh with its tenant conditions taken out: the
// policies and views of the database must hold alone.
func TestSecondNet(t *testing.T) {
	t.Parallel()
	s := report.suite("second net")
	server, err := embedded.Start(t.Context(), embedded.Options{DataDir: t.TempDir(), Clock: clock.System()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Stop(context.WithoutCancel(t.Context()))) })
	proxy := newForgetful(t, server.URL("postgres"))
	w := world.New(t, "DATABASE_URL="+proxy.url())
	prepare(t, w)
	require.Greater(t, proxy.rewrote.Load(), int64(20), "the proxy found no tenant condition to take out")

	before := rowsOf(t, w, w.Vars["foreign_account_id"])
	rpcs := 0
	for i, f := range loadFixtures(t) {
		if f.internal() {
			continue
		}
		rpcs++
		for _, over := range wire.All() {
			for _, as := range []string{"owner", "viewer", "agent"} {
				secondNetCell(t, w, s, f, over, as, 20_000+i)
			}
		}
	}
	after := rowsOf(t, w, w.Vars["foreign_account_id"])
	for table, rows := range before {
		s.check(t, rows == after[table], "rows of the other organisation changed in %s", table)
	}
	s.coverage = fmt.Sprintf("%d RPCs, %d conditions taken out", rpcs, proxy.rewrote.Load())
	t.Run("tables", func(t *testing.T) { tablesHold(t, w, s) })
	t.Run("references", func(t *testing.T) { referencesHold(t, w, s) })
	t.Run("functions", func(t *testing.T) { lookupsTellIDsOnly(t, w, s) })
}

func secondNetCell(t *testing.T, w *world.World, s *suite, f fixture, over, as string, n int) {
	t.Helper()
	vars := numbered(w, n)
	bodies := []map[string]any{}
	for field, name := range f.leaves() {
		if theirs, twin := vars[foreign+name]; twin {
			bodies = append(bodies, f.body(vars, field, theirs))
		}
	}
	if len(bodies) == 0 && !strings.Contains(f.RPC, "/Delete") {
		bodies = append(bodies, f.body(vars, "", ""))
	}
	for _, body := range bodies {
		got, err := f.call(t, w, over, as, body)
		require.NoError(t, err)
		found := leaked(got, ids(w.Vars, "", body))
		s.check(t, len(found) == 0, "%s as %s over %s: without the code's own condition the answer holds %v", f.RPC, as, over, found)
	}
}

// tablesHold reads, changes and removes, as the api role in the account of one
// organisation, everything in every table and view that it may touch (S-58).
func tablesHold(t *testing.T, w *world.World, s *suite) {
	t.Helper()
	ours, theirs := w.Vars["account_id"], w.Vars["foreign_account_id"]
	for _, db := range []string{"turumba_account", "turumba_messaging"} {
		w.SQL(t, db, func(ctx context.Context, conn *pgx.Conn) {
			rows, err := conn.Query(ctx, `
				SELECT c.relname, a.attname FROM pg_class c
				JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = CASE c.relname WHEN 'accounts' THEN 'id' ELSE 'account_id' END
				WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition
					AND has_table_privilege('turumba_api', c.oid, 'SELECT')
					AND c.relname <> 'pending_registrations' -- of the identity provider, from before there is a tenant`)
			require.NoError(t, err)
			tables, err := pgx.CollectRows(rows, pgx.RowToStructByPos[struct{ Name, Tenant string }])
			require.NoError(t, err)
			require.NotEmpty(t, tables)
			for _, table := range tables {
				tableHolds(t, ctx, conn, s, db, heldTable{"turumba_api", table.Name, table.Tenant}, ours, theirs)
			}
			leavesHold(t, ctx, conn, s, db, ours, theirs)
		})
	}
}

// heldTable is what a role may touch, and its column of the tenant.
type heldTable struct{ Role, Name, Tenant string }

// tableHolds reads, changes and removes rows of theirs, and gives rows of ours away.
func tableHolds(t *testing.T, ctx context.Context, conn *pgx.Conn, s *suite, db string, table heldTable, ours, theirs string) {
	t.Helper()
	name := pgx.Identifier{table.Name}.Sanitize()
	as := func(accounts, sql string, args ...any) (n int64, err error) {
		tx, err := conn.Begin(ctx)
		require.NoError(t, err)
		defer func() { require.NoError(t, tx.Rollback(ctx)) }()
		_, err = tx.Exec(ctx, "SELECT set_config('app.accounts', $1, true)", accounts)
		require.NoError(t, err)
		_, err = tx.Exec(ctx, "SET LOCAL ROLE "+table.Role)
		require.NoError(t, err)
		tag, err := tx.Exec(ctx, sql, args...)
		return tag.RowsAffected(), err
	}
	n, err := as(ours, fmt.Sprintf("SELECT FROM %s WHERE %s IS DISTINCT FROM $1", name, table.Tenant), ours)
	s.check(t, err == nil && n == 0, "%s.%s shows %d foreign rows, %v", db, table.Name, n, err)
	n, err = as("", "SELECT FROM "+name)
	s.check(t, err == nil && n == 0, "%s.%s shows %d rows without an account, %v", db, table.Name, n, err)
	for _, sql := range []string{"DELETE FROM %[1]s WHERE %[2]s = $1", "UPDATE %[1]s SET %[2]s = %[2]s WHERE %[2]s = $1"} {
		n, err = as(ours, fmt.Sprintf(sql, name, table.Tenant), theirs)
		s.check(t, denied(err) || err == nil && n == 0, "%s.%s: %q touched %d foreign rows, %v", db, table.Name, sql, n, err)
	}
	if table.Tenant == "account_id" { // give a row away
		_, err = as(ours, fmt.Sprintf("UPDATE %s SET account_id = $1 WHERE account_id = $2", name), theirs, ours)
		s.check(t, err != nil || empty(ctx, conn, name, ours), "%s.%s: rows could be given to another organisation", db, table.Name)
	}
}

func empty(ctx context.Context, conn *pgx.Conn, table, account string) bool {
	var found bool
	err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM "+table+" WHERE account_id = $1)", account).Scan(&found)
	return err == nil && !found
}

// denied reports whether a statement was refused: a role may not, or nobody can, as a view
// over several tables has no rows of its own.
func denied(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && (e.Code == "42501" || e.Code == "55000")
}

// leavesHold: policies of the parent do not apply to a partition that is named, so those
// that a role may touch must hold by themselves.
func leavesHold(t *testing.T, ctx context.Context, conn *pgx.Conn, s *suite, db, ours, theirs string) {
	t.Helper()
	rows, err := conn.Query(ctx, `
		SELECT r.rolname, c.relname, 'account_id', c.relrowsecurity AND c.relforcerowsecurity FROM pg_class c, pg_roles r
		WHERE c.relispartition AND c.relkind = 'r' AND r.rolname IN ('turumba_api', 'turumba_worker')
			AND has_table_privilege(r.rolname, c.oid, 'SELECT, INSERT, UPDATE, DELETE')`)
	require.NoError(t, err)
	leaves, err := pgx.CollectRows(rows, pgx.RowToStructByPos[struct {
		heldTable
		Held bool
	}])
	require.NoError(t, err)
	for _, leaf := range leaves {
		s.check(t, leaf.Held, "%s.%s: %s is bound by no row-level security", db, leaf.Name, leaf.Role)
		tableHolds(t, ctx, conn, s, db, leaf.heldTable, ours, theirs)
	}
}

// referencesHold checks that every foreign key between tenant tables carries the
// account, so that a child of one organisation can never have a parent of
// another (S-51).
func referencesHold(t *testing.T, w *world.World, s *suite) {
	t.Helper()
	for _, db := range []string{"turumba_account", "turumba_messaging"} {
		w.SQL(t, db, func(ctx context.Context, conn *pgx.Conn) {
			rows, err := conn.Query(ctx, `
				SELECT k.conname FROM pg_constraint k
				JOIN pg_attribute child ON child.attrelid = k.conrelid AND child.attname = 'account_id'
				JOIN pg_attribute parent ON parent.attrelid = k.confrelid AND parent.attname = 'account_id'
				WHERE k.contype = 'f' AND k.conparentid = 0
					AND NOT (k.conkey @> ARRAY[child.attnum] AND k.confkey @> ARRAY[parent.attnum])`)
			require.NoError(t, err)
			loose, err := pgx.CollectRows(rows, pgx.RowTo[string])
			require.NoError(t, err)
			s.check(t, len(loose) == 0, "%s: foreign keys without the account: %v", db, loose)
		})
	}
	w.SQL(t, "turumba_account", func(ctx context.Context, conn *pgx.Conn) {
		for name, sql := range map[string]string{
			"a foreign contact in a group": "INSERT INTO contact_group_members (account_id, group_id, contact_id) VALUES ($1, $2, $3)",
			"a foreign role for a member":  "UPDATE account_users SET role_id = $4 WHERE account_id = $1 AND $2::uuid IS NOT NULL AND $3::uuid IS NOT NULL",
		} {
			args := []any{w.Vars["account_id"], w.Vars["contact_group_id"], w.Vars["foreign_contact_id"]}
			if strings.Contains(sql, "$4") {
				args = append(args, w.Vars["foreign_role_id"])
			}
			_, err := conn.Exec(ctx, sql, args...)
			var e *pgconn.PgError
			s.check(t, errors.As(err, &e) && e.Code == "23503", "%s: %v", name, err)
		}
	})
}

// lookupsTellIDsOnly holds the closed list of functions that run as their owner:
// they tell ids, with how many days something is kept, how much upkeep they did, or how
// many accounts somebody is in.
func lookupsTellIDsOnly(t *testing.T, w *world.World, s *suite) {
	t.Helper()
	closed := map[string][]string{
		"turumba_account": {
			"account_ids(of_user uuid) -> SETOF uuid", "api_key_account(of_key uuid) -> uuid",
			"audit_pending(older_than timestamp with time zone, most integer) -> TABLE(id uuid, account_id uuid)",
			"audit_purge(older_than timestamp with time zone, most integer) -> integer", "blocked_accounts() -> SETOF uuid",
			"contact_imports_purge(older_than timestamp with time zone, uploads_older_than timestamp with time zone, most integer) -> integer",
			"contacts_analyze() -> void", "invitation_account(of_token bytea) -> uuid",
			"memberships_of(of_user uuid, OUT joined bigint, OUT owned bigint) -> record",
			"message_retention(after uuid, most integer) -> TABLE(id uuid, days integer)",
		},
		"turumba_messaging": {
			"messages_upkeep(ahead_months integer) -> integer",
			"outbox_upkeep(ahead_days integer, keep_days integer, OUT created integer, OUT dropped integer, OUT held integer, OUT ready_until date) -> record",
			"sealed_channels(after uuid, most integer) -> TABLE(id uuid, account_id uuid)",
			"sends_after(after uuid, most integer) -> TABLE(id uuid, account_id uuid)",
		},
	}
	for _, db := range []string{"turumba_account", "turumba_messaging"} {
		w.SQL(t, db, func(ctx context.Context, conn *pgx.Conn) {
			rows, err := conn.Query(ctx, `
				SELECT p.proname || '(' || pg_get_function_arguments(p.oid) || ') -> ' || pg_get_function_result(p.oid)
				FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
				WHERE p.prosecdef AND n.nspname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1`)
			require.NoError(t, err)
			got, err := pgx.CollectRows(rows, pgx.RowTo[string])
			require.NoError(t, err)
			s.check(t, fmt.Sprint(got) == fmt.Sprint(append([]string{}, closed[db]...)), "%s: functions that run as their owner: %q", db, got)
		})
	}
}
