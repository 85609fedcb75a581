package security_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/turumba/turumba/e2e/wire"
)

// answerMemory is how large answers may make a process, in KiB: pages end, those that are
// made at once share room, and so do those that nobody has read yet.
const answerMemory = 640 << 10

// TestMemoryOfAnswers: somebody who registered, and stored as much as the contract allows,
// makes no process larger than what few answers need, with every list and export of the
// contract, as large a page as may be asked for, read at once by many and read by nobody.
func TestMemoryOfAnswers(t *testing.T) {
	s := report.suite("memory of answers")
	m := startServices(t)
	m.addUsers(t)
	token := m.person(t)
	group := m.store(t, token)
	m.warmUp(t, wire.Methods())
	before := m.peaks(t)
	lists := 0
	var read atomic.Int64
	for _, md := range wire.Methods() {
		if !reads(md) || !full && md.Name() != "ListContacts" && md.Name() != "ExportContacts" {
			continue
		}
		lists++
		kinds := map[string]attack{"gRPC": m.listGRPC(t, token, md, group, &read), "gRPC unread": m.listGRPC(t, token, md, group, nil)}
		if _, path := wire.Route(md); path != "" {
			path = strings.Replace(path, "{contact_group_id}", group, 1)
			path = variable.ReplaceAllString(path, "0190a5c8-1111-7000-8000-00000000dead") + "?limit=1000"
			path = strings.TrimSuffix(path, map[bool]string{true: "?limit=1000"}[md.IsStreamingServer()])
			kinds["REST"], kinds["REST unread"] = m.listREST(token, path, &read), m.unreadREST(token, path)
		}
		for kind, one := range kinds {
			m.run(t, slices.Repeat([]attack{one}, attackers))
			for i, peak := range m.peaks(t) {
				s.check(t, peak <= answerMemory, "%s %s: %s had %d MiB, at most %d are allowed", kind, md.Name(), m.names[i], peak>>10, answerMemory>>10)
				if peak > before[i] {
					t.Logf("%-11s %-24s %-10s %6d KiB", kind, md.Name(), m.names[i], peak)
					before[i] = peak
				}
			}
		}
	}
	require.NotZero(t, lists)
	require.Greater(t, read.Load(), int64(4<<20), "bytes of answers: some were read")
	t.Logf("%d MiB were read", read.Load()>>20)
	s.coverage = fmt.Sprintf("%d lists and exports, %d at once, read and unread, 2 wires, each process within %d MiB", lists, attackers, answerMemory>>10)
}

// reads reports whether an RPC answers with a page of a list, or reads to the end of one.
func reads(md protoreflect.MethodDescriptor) bool {
	if wire.AuthOf(md).GetPublic() || wire.AuthOf(md).GetInternal() != nil {
		return false
	}
	return md.Output().Fields().ByName("meta") != nil || md.IsStreamingServer() && strings.HasPrefix(string(md.Name()), "Export")
}

// store stores contacts with as many bytes, and as many values, as they may have, and
// templates as long as they may be; all the contacts are in the group.
func (m *services) store(t *testing.T, token string) (group string) {
	t.Helper()
	var made struct {
		ID string `json:"id"`
	}
	m.post(t, "/v1/groups", token, map[string]any{"name": "Everybody"}, &made)
	bytes, values := map[string]any{"a": strings.Repeat("z", 32_000)}, map[string]any{"a": make([]int, 4000)}
	for i := range 10 {
		n, metadata := 240, bytes
		if i >= 5 {
			n, metadata = 60, values
		}
		contacts := make([]map[string]any, n)
		for j := range contacts {
			contacts[j] = map[string]any{"external_id": fmt.Sprintf("%d-%d", i, j), "metadata": metadata}
		}
		m.post(t, "/v1/contacts/batch", token, map[string]any{"contacts": contacts}, nil)
	}
	for i := range 100 {
		m.post(t, "/v1/templates", token, map[string]any{"name": fmt.Sprint(i), "body": "x", "html_body": "<p>" + strings.Repeat("x", 200<<10) + "</p>"}, nil)
	}
	conn, err := pgx.Connect(t.Context(), m.database("turumba_account"))
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), "INSERT INTO contact_group_members (account_id, group_id, contact_id) SELECT account_id, $1, id FROM contacts", made.ID)
	require.NoError(t, err)
	require.NoError(t, conn.Close(t.Context()))
	return made.ID
}

// listGRPC asks for a page, as large as it may be, and reads it or not.
func (m *services) listGRPC(t *testing.T, token string, md protoreflect.MethodDescriptor, group string, read *atomic.Int64) attack {
	t.Helper()
	conn, err := grpc.NewClient(m.grpc[string(md.ParentFile().Package())], grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithStaticStreamWindowSize(64<<10), grpc.WithStaticConnWindowSize(16<<20))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	mt, err := protoregistry.GlobalTypes.FindMessageByName(md.Input().FullName())
	require.NoError(t, err)
	req := mt.New()
	for i := range md.Input().Fields().Len() {
		switch fd := md.Input().Fields().Get(i); {
		case fd.Name() == "limit":
			req.Set(fd, protoreflect.ValueOfInt32(1000))
		case fd.Name() == "contact_group_id":
			req.Set(fd, protoreflect.ValueOfString(group))
		case fd.Kind() == protoreflect.StringKind && !fd.IsList() && strings.HasSuffix(string(fd.Name()), "_id"):
			req.Set(fd, protoreflect.ValueOfString("0190a5c8-1111-7000-8000-00000000dead"))
		}
	}
	path := fmt.Sprintf("/%s/%s", md.Parent().FullName(), md.Name())
	return func(ctx context.Context) {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
		for n := 0; n < 8 && ctx.Err() == nil; n++ { // many of one connection
			stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, path)
			if err != nil || stream.SendMsg(req.Interface()) != nil || stream.CloseSend() != nil {
				return
			}
			for answer := new(emptypb.Empty); read != nil && stream.RecvMsg(answer) == nil; {
				read.Add(int64(proto.Size(answer)))
			}
		}
		if read == nil {
			<-ctx.Done()
		}
	}
}

// listREST asks for a page and reads it.
func (m *services) listREST(token, path string, read *atomic.Int64) attack {
	return func(ctx context.Context) {
		client := from("127.0.0.1")
		defer client.CloseIdleConnections()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+m.rest+path, http.NoBody)
		if err != nil {
			return
		}
		req.Header.Set("Authorization", "Bearer "+token)
		res, err := client.Do(req)
		if err != nil {
			return
		}
		n, _ := io.Copy(io.Discard, res.Body) // refused or not
		read.Add(n)
		_ = res.Body.Close()
	}
}

// unreadREST asks for a page on eight connections and reads nothing.
func (m *services) unreadREST(token, path string) attack {
	return func(ctx context.Context) {
		for range 8 {
			conn, ok := dialRaw(ctx, m.rest)
			if !ok {
				continue
			}
			defer func() { _ = conn.Close() }() // its answer is not wanted
			if tcp, ok := conn.(*net.TCPConn); ok {
				_ = tcp.SetReadBuffer(4 << 10) // what the system keeps is no memory of the process
			}
			_, _ = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", path, token)
		}
		<-ctx.Done()
	}
}
