package query_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/query"
)

// stretchSchema makes batches of things of one time, of which two have the same; each
// batch has pages of the addresses of 10 of its things.
const stretchSchema = `
ALTER TABLE things ADD COLUMN batch_id uuid;
CREATE TABLE batches (id uuid PRIMARY KEY, account_id uuid NOT NULL, at timestamptz NOT NULL, opened int NOT NULL DEFAULT 0, shut int NOT NULL DEFAULT 0);
CREATE TABLE pages (batch_id uuid, account_id uuid NOT NULL, at timestamptz NOT NULL, first_id uuid, last_id uuid, texts text);
CREATE FUNCTION id_at(at timestamptz, i int) RETURNS uuid LANGUAGE sql IMMUTABLE
	RETURN (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7000800000000' || lpad(to_hex(i), 7, '0'))::uuid;
CREATE FUNCTION minute(i int) RETURNS timestamptz LANGUAGE sql IMMUTABLE RETURN timestamptz '2026-01-01Z' + i * interval '1 minute';`

// fillStretches gives the account 60 things alone and 7 batches of 25, among them in time;
// those of the last two batches are mixed in the order. Every account has the same texts.
func fillStretches(t *testing.T, pool *pg.DB, account string, no int) {
	t.Helper()
	_, err := pool.Exec(t.Context(), strings.NewReplacer("$account", "'"+account+"'::uuid", "$no", fmt.Sprint(no)).Replace(`
		INSERT INTO batches (id, account_id, at) SELECT id_at(minute(1000 + b), $no), $account, minute(least(b, 6) * 10) FROM generate_series(1, 7) AS b;
		INSERT INTO things (id, account_id, name, state, enabled, address, tags, metadata, created_at, batch_id)
			SELECT id_at(at, $no * 100000 + i * 10 + 7 - batch), $account, 'name ' || i % 5, CASE WHEN batch % 2 = 0 OR i % 9 = 0 THEN 'open' ELSE 'half_shut' END, i % 3 = 0,
				'Person' || i % 20 || '@Example.org', '{}', '{}', at, id_at(minute(1000 + batch), $no)
			FROM (SELECT b AS batch, i, minute(least(b, 6) * 10) AS at FROM generate_series(1, 7) AS b, generate_series(1, 25) AS i) AS batched;
		INSERT INTO things (id, account_id, name, state, enabled, address, tags, metadata, created_at)
			SELECT id_at(minute(i), $no * 100000 + i * 10 + 9), $account, 'alone', CASE WHEN i % 7 = 0 THEN 'open' ELSE 'half_shut' END, i % 3 = 0, 'person' || i % 20 || '@example.org', '{}', '{}', minute(i)
			FROM generate_series(1, 60) AS i;
		UPDATE batches b SET opened = (SELECT count(*) FROM things WHERE batch_id = b.id AND state = 'open'), shut = (SELECT count(*) FROM things WHERE batch_id = b.id AND state <> 'open')
			WHERE account_id = $account;
		INSERT INTO pages
			SELECT batch_id, $account, created_at, (array_agg(id ORDER BY id))[1], (array_agg(id ORDER BY id DESC))[1], E'\n' || lower(string_agg(address, E'\n' ORDER BY id)) || E'\n'
			FROM (SELECT *, (row_number() OVER (PARTITION BY batch_id ORDER BY id) - 1) / 10 AS page FROM things WHERE account_id = $account AND batch_id IS NOT NULL) AS n
			GROUP BY batch_id, created_at, page;`))
	require.NoError(t, err)
}

// stretched is the spec of things that come in batches.
func stretched(tab *query.Table) {
	tab.TimeInID = "created_at"
	tab.Stretches = &query.Stretches{
		Alone: "batch_id IS NULL",
		Leads: query.Lead{From: "batches", Time: "at", Rows: "batch_id = lead.id"},
		Pages: query.Lead{From: "pages", Time: "at", Rows: "batch_id = lead.batch_id AND id BETWEEN lead.first_id AND lead.last_id"},
	}
	tab.Columns["state"] = query.Column{NotNull: true, Lead: "(lead.opened > 0 AND 'open' = ANY ($values) OR lead.shut > 0 AND 'half_shut' = ANY ($values))"}
	tab.Columns["address"] = query.Column{NotNull: true, Page: "position(lower($value) IN lead.texts) > 0"}
	tab.Columns["group_id"] = query.Column{Expr: "batch_id", Kind: query.KindUUID, Operators: ops("eq in")}
}

// TestStretchesChangeNothing compares lists that are read by stretches with the same lists
// that are not, page by page.
func TestStretchesChangeNothing(t *testing.T) {
	t.Parallel()
	pool := database(t)
	_, err := pool.Exec(t.Context(), stretchSchema)
	require.NoError(t, err)
	fillStretches(t, pool, accountA, 1)
	fillStretches(t, pool, accountB, 2)
	plain := spec(t, func(tab *query.Table) { tab.TimeInID = "created_at" })
	with := spec(t, stretched)
	const all = "created_at:range:2026-01-01,2026-01-20"
	for _, filters := range [][]string{
		{"state:eq:open"},
		{"state:in:open,half_shut"},
		{"state:eq:half_shut", "enabled:eq:true"},
		{"state:eq:open", "created_at:range:2026-01-01T00:20:00Z,2026-01-01T00:50:00Z"},
		{"state:eq:open", "created_at:lt:2026-01-01T00:20:00Z"},
		{"address:eq:Person7@Example.org"},
		{"address:eq:person7@example.org"},
		{"address:eq:erson7@example.org"},
		{"address:eq:person7@example.org", "state:eq:open"},
		{"address:icontains:N7@", all},
		{"address:icontains:%", all},
		{"address:icontains:example", all},
		{"address:icontains:nobody", all},
		{"address:icontains:1@EX", "created_at:range:2026-01-01T00:20:00Z,2026-01-01T00:50:00Z"},
	} {
		for _, scope := range [][]string{{accountA}, {accountA, accountB}} {
			for _, sort := range []string{"created_at:desc", "created_at:asc", "state"} {
				t.Run(fmt.Sprint(filters, len(scope), sort), func(t *testing.T) {
					t.Parallel()
					whole := list(t, pool, plain, query.Request{Filters: filters, Sorts: []string{sort}, Limit: 1000}, scope...)
					var paged []string
					request := query.Request{Filters: filters, Sorts: []string{sort}, Limit: 7}
					for more := true; more; more = request.PageToken != "" {
						page := list(t, pool, with, request, scope...)
						if !page.Meta.GetTotalIsEstimate() { // the machine may be slow
							require.EqualValues(t, len(whole.Data), page.Meta.GetTotal())
						}
						paged = append(paged, ids(page.Data)...)
						request.PageToken = page.Meta.GetNextPageToken()
					}
					require.Equal(t, ids(whole.Data), append([]string{}, paged...))
					skipped := list(t, pool, with, query.Request{Filters: filters, Sorts: []string{sort}, Limit: 5, Skip: 3}, scope...)
					require.Equal(t, ids(whole.Data)[min(3, len(paged)):min(8, len(paged))], ids(skipped.Data))
				})
			}
		}
	}
}

// TestStretchesAreChosen: which lists are read how.
func TestStretchesAreChosen(t *testing.T) {
	t.Parallel()
	s := spec(t, stretched, func(tab *query.Table) {
		tab.Columns["name"] = query.Column{Implied: "created_at = (SELECT at FROM names WHERE text = $value)", Stretch: true}
	})
	for _, c := range []struct {
		filter, sort string
		led, probed  bool
		settings     int
	}{
		{"state:eq:open", "created_at", true, false, 1},
		{"state:in:open", "created_at:desc", true, false, 1},
		{"state:ne:open", "created_at", true, false, 1},
		{"state:eq:open", "rank", false, false, 0},
		{"enabled:eq:true", "created_at:desc", true, false, 1},
		{"address:eq:x", "rank", false, true, 0},
		{"name:eq:x", "created_at", false, false, 1},
		{"name:eq:x", "rank", false, false, 0},
		{"id:eq:" + someID, "created_at", false, false, 0},
	} {
		got, err := query.Compile(s, query.Request{Filters: []string{c.filter}, Sorts: []string{c.sort}}, []string{accountA})
		require.NoError(t, err)
		require.Equal(t, c.led, strings.Contains(got.SQL, "batches AS lead"), c.filter)
		require.Equal(t, c.led, strings.Contains(got.Count.SQL, "batches AS lead"), c.filter)
		require.Equal(t, c.probed, got.Probe != nil && strings.Contains(got.Probe.SQL, "pages AS lead"), c.filter)
		require.Len(t, got.Settings, c.settings, c.filter)
	}
	_, err := query.SpecFor(describe(t, things()), query.Table{From: "things", Select: []string{"id"}, TokenKey: make([]byte, 16), Stretches: &query.Stretches{}})
	require.ErrorContains(t, err, "needs TimeInID")
}
