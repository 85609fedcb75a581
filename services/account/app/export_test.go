package app_test

import (
	"bytes"
	"context"
	"encoding/csv"
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
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	optionsv1 "github.com/turumba/turumba/gen/turumba/options/v1"
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

// overTheWire serves the service over a socket and returns a connection to it.
func overTheWire(t *testing.T, s *grpcserver.Server) *grpcserver.Conn {
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
	return conn
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
	client := accountv1.NewContactServiceClient(overTheWire(t, w.server))
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

// exports are the streams that read pages, each with the table whose rows it reads; the
// others stand here with an empty one.
var exports = map[string]string{
	accountv1.ContactService_ExportContacts_FullMethodName:                  "contacts",
	accountv1.ContactImportService_ExportContactImportErrors_FullMethodName: "contact_import_errors",
	accountv1.ContactImportService_WatchContactImport_FullMethodName:        "", // one row for all who watch
}

// TestExportsHaveAllRows walks the contract: an export of many messages has every row, over
// the network and in the process of a gateway, which shares memory with the server and may
// read a message when later ones are written.
func TestExportsHaveAllRows(t *testing.T) {
	t.Parallel()
	const rows = 3000
	w := start(t)
	owner, _, _ := w.signUp(t, "owner@example.org")
	w.fill(t, owner, rows)
	file := "email,city\n"
	for i := range rows {
		file += fmt.Sprintf("nobody%d,%s\n", i, strings.Repeat("c", 100))
	}
	im := w.imported(t, owner, &accountv1.ContactImportSettings{FileName: "people.csv"}, file)
	for _, method := range streamsForPeople(t) {
		if exports[fullName(method)] == "" {
			continue
		}
		for wire, conn := range map[string]grpc.ClientConnInterface{"network": overTheWire(t, w.server), "gateway": w.server.EdgeConn()} {
			t.Run(wire+"/"+string(method.Name()), func(t *testing.T) {
				stream := openStream(t, owner, conn, method, im.GetId())
				var messages []*dynamicpb.Message
				for {
					m := dynamicpb.NewMessage(method.Output())
					err := stream.RecvMsg(m)
					if errors.Is(err, io.EOF) {
						break
					}
					require.NoError(t, err)
					messages = append(messages, m)
				}
				require.Greater(t, len(messages), 2)
				var all bytes.Buffer
				for _, m := range messages {
					all.Write(m.Get(method.Output().Fields().ByName("data")).Bytes())
				}
				table, err := csv.NewReader(&all).ReadAll()
				require.NoError(t, err)
				require.Len(t, table, 1+rows)
				different := map[string]bool{}
				for _, row := range table {
					different[strings.Join(row, ",")] = true
				}
				require.Len(t, different, 1+rows)
			})
		}
	}
}

func fullName(m protoreflect.MethodDescriptor) string {
	return "/" + string(m.Parent().FullName()) + "/" + string(m.Name())
}

// TestDroppedExportEndsItsStatement walks the contract: of every export four pages are read
// at a time, and the server gives up the page of one whose client is gone.
func TestDroppedExportEndsItsStatement(t *testing.T) {
	t.Parallel()
	w := start(t)
	owner, _, _ := w.signUp(t, "owner@example.org")
	im := w.imported(t, owner, &accountv1.ContactImportSettings{FileName: "people.csv"}, "email\nnobody\n")
	conn := overTheWire(t, w.server)
	for _, method := range streamsForPeople(t) {
		table, known := exports[fullName(method)]
		require.True(t, known, "%s streams: say which table's rows it reads by pages", method.FullName())
		if table == "" {
			continue
		}
		t.Run(string(method.Name()), func(t *testing.T) {
			drop, free := w.openBehindLock(t, owner, conn, method, im.GetId(), table)
			w.waiting(t, 4) // at a time, of all exports
			drop()
			w.waiting(t, 0)
			free()
		})
	}
}

// streamsForPeople are the RPCs of the service that stream answers to people.
func streamsForPeople(t *testing.T) (list []protoreflect.MethodDescriptor) {
	t.Helper()
	protoregistry.GlobalFiles.RangeFilesByPackage("turumba.account.v1", func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			methods := f.Services().Get(i).Methods()
			for j := range methods.Len() {
				m := methods.Get(j)
				rule, _ := proto.GetExtension(m.Options(), optionsv1.E_Auth).(*optionsv1.Auth)
				if m.IsStreamingServer() && rule.GetInternal() == nil {
					list = append(list, m)
				}
			}
		}
		return true
	})
	require.NotEmpty(t, list)
	return list
}

// openBehindLock opens the stream eight times while nobody can read the table; drop leaves
// them, free lets others read.
func (w *world) openBehindLock(t *testing.T, ctx context.Context, conn grpc.ClientConnInterface, method protoreflect.MethodDescriptor, id, table string) (drop, free func()) {
	t.Helper()
	locked, unlock := make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	go func() { done <- w.locked(t, table, locked, unlock) }()
	<-locked
	ctx, drop = context.WithCancel(ctx)
	for range 8 {
		openStream(t, ctx, conn, method, id)
	}
	return drop, func() {
		close(unlock)
		require.NoError(t, <-done)
	}
}

// openStream begins a stream of the resource with the id.
func openStream(t *testing.T, ctx context.Context, conn grpc.ClientConnInterface, method protoreflect.MethodDescriptor, id string) grpc.ClientStream {
	t.Helper()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, fullName(method))
	require.NoError(t, err)
	req := dynamicpb.NewMessage(method.Input())
	for i := range method.Input().Fields().Len() {
		if f := method.Input().Fields().Get(i); strings.HasSuffix(string(f.Name()), "_id") && f.Name() != "account_id" {
			req.Set(f, protoreflect.ValueOfString(id))
		}
	}
	require.NoError(t, stream.SendMsg(req))
	require.NoError(t, stream.CloseSend())
	return stream
}

// waiting waits until so many statements wait for a lock.
func (w *world) waiting(t *testing.T, n int) {
	t.Helper()
	admin := w.db.Open(t, "")
	require.Eventually(t, func() bool {
		rows, err := admin.Query(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' AND wait_event_type = 'Lock'")
		require.NoError(t, err)
		found, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[int])
		require.NoError(t, err)
		return found == n
	}, 5*time.Second, 5*time.Millisecond, "pages that wait: %d", n)
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
