package app_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/grpcserver"
	"github.com/turumba/turumba/services/account/app"
)

// fill makes n contacts whose rows in a file have 600 bytes or more.
func (w *world) fill(t *testing.T, ctx context.Context, n int) {
	t.Helper()
	for made := 0; made < n; {
		req := &accountv1.BatchCreateContactsRequest{}
		for range min(1000, n-made) {
			req.Contacts = append(req.Contacts, &accountv1.ContactInput{
				FirstName: strings.Repeat("n", 100), LastName: strings.Repeat("n", 100), Email: fmt.Sprintf("c%d.%s@%s.example", made, strings.Repeat("e", 40), strings.Repeat("d", 60)),
			})
			made++
		}
		_, err := w.contacts.BatchCreateContacts(ctx, req)
		require.NoError(t, err)
	}
}

// overTheWire serves the service over a socket and returns a client of it.
func overTheWire(t *testing.T, s *grpcserver.Server) accountv1.ContactServiceClient {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	served := make(chan error, 1)
	go func() { served <- grpcserver.Serve(ctx, l, s) }()
	conn, err := grpcserver.Mesh{}.Dial("passthrough:///"+l.Addr().String(), "", clock.System())
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, conn.Close())
		stop()
		require.NoError(t, <-served)
	})
	return accountv1.NewContactServiceClient(conn)
}

// TestExportIsReadAsItIsTaken: of an export that its client does not read, no more pages are
// read than fit into a window and the message in hand; the rest is read as it is taken.
func TestExportIsReadAsItIsTaken(t *testing.T) {
	t.Parallel()
	const people = 20_000 // in pages of 1 000, some 300 KB each
	registry := prometheus.NewRegistry()
	w := start(t, func(_ *app.Config, deps *app.Deps) { deps.Registry = registry })
	owner, _, _ := w.signUp(t, "owner@example.org")
	w.fill(t, owner, people)
	client := overTheWire(t, w.server)
	taken := func() int {
		families, err := registry.Gather()
		require.NoError(t, err)
		for _, f := range families {
			if f.GetName() == "turumba_db_acquires_total" {
				return int(f.GetMetric()[0].GetCounter().GetValue())
			}
		}
		return 0
	}
	before := taken()
	stream, err := client.ExportContacts(owner, &accountv1.ExportContactsRequest{})
	require.NoError(t, err)
	first, err := stream.Recv()
	require.NoError(t, err)
	last := -1
	require.Eventually(t, func() bool { // nothing more is read
		rests := taken() == last
		last = taken()
		return rests
	}, time.Minute, 500*time.Millisecond)
	require.LessOrEqual(t, last-before, 4, "the caller, and pages of %d", people/1000)
	lines := strings.Count(string(first.GetData()), "\n")
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		lines += strings.Count(string(m.GetData()), "\n")
	}
	require.Equal(t, people+1, lines)
}

// TestDroppedExportEndsItsStatement: the server gives up the page of an export whose client
// is gone.
func TestDroppedExportEndsItsStatement(t *testing.T) {
	t.Parallel()
	w := start(t)
	owner, _, _ := w.signUp(t, "owner@example.org")
	client := overTheWire(t, w.server)
	admin := w.db.Open(t, "")
	reading := func(n int) {
		t.Helper()
		require.Eventually(t, func() bool {
			rows, err := admin.Query(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' AND wait_event_type = 'Lock'")
			require.NoError(t, err)
			found, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[int])
			require.NoError(t, err)
			return found == n
		}, 5*time.Second, 5*time.Millisecond, "pages that wait: %d", n)
	}
	locked, free := make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- w.locked(t, "contacts", locked, free)
	}()
	<-locked
	ctx, drop := context.WithCancel(owner)
	for range 8 {
		_, err := client.ExportContacts(ctx, &accountv1.ExportContactsRequest{})
		require.NoError(t, err)
	}
	reading(4) // at a time, of all exports
	drop()
	reading(0)
	close(free)
	require.NoError(t, <-done)
}

// locked keeps a table from being read until free is closed.
func (w *world) locked(t *testing.T, table string, locked chan<- struct{}, free <-chan struct{}) error {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), w.db.URL)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }() // it ends the transaction
	if _, err := conn.Exec(t.Context(), "BEGIN; LOCK TABLE "+pgx.Identifier{table}.Sanitize()); err != nil {
		return err
	}
	close(locked)
	<-free
	return nil
}
