package security_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/turumba/turumba/e2e/wire"
	"github.com/turumba/turumba/kit/bounds"
)

const (
	// requestMemory is how large large requests may make a process, in KiB: the values of all
	// requests together are bounded, and so is what is left uncollected.
	requestMemory = 640 << 10
	// fatCallers is how many large requests one person makes at once.
	fatCallers = 16
)

// TestMemoryOfRequests: somebody who registered, and makes the largest requests that the
// contract allows of whatever has free data, makes no process larger than what few of them
// need, however many come at once.
func TestMemoryOfRequests(t *testing.T) {
	s := report.suite("memory of requests")
	m := startServices(t)
	m.addUsers(t)
	token := m.person(t)
	m.warmUp(t, wire.Methods())
	calls := 0
	for _, md := range wire.Methods() {
		fat, values := fattest(t, md)
		if values < 4096 || !full && values < bounds.MaxValues/2 {
			continue
		}
		for name, one := range map[string]attack{"gRPC": m.fatGRPC(t, token, md, fat), "REST": m.fatREST(t, token, md, fat)} {
			if one == nil {
				continue
			}
			m.run(t, slices.Repeat([]attack{one}, fatCallers)) // fewer than run makes at once
			calls += fatCallers
			for i, peak := range m.peaks(t) {
				s.check(t, peak <= requestMemory, "%s %s: %s had %d MiB, at most %d are allowed", name, md.Name(), m.names[i], peak>>10, requestMemory>>10)
				t.Logf("%-4s %-24s %7d values %-10s %6d KiB", name, md.Name(), values, m.names[i], peak)
			}
		}
	}
	require.NotZero(t, calls)
	s.coverage = fmt.Sprintf("%d requests of up to %d values, %d at once, each process within %d MiB", calls, bounds.MaxValues, fatCallers, requestMemory>>10)
}

// person is the token of somebody with an account.
func (m *services) person(t *testing.T) (token string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), m.database("turumba_account"))
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), "UPDATE users SET idp_issuer = 'http://localhost:8080'") // ours
	require.NoError(t, err)
	require.NoError(t, conn.Close(t.Context()))
	var login struct {
		AccessToken string `json:"access_token"`
	}
	m.post(t, "/v1/auth/login", "", map[string]string{"email": "person1@people.example", "password": loginPassword}, &login)
	m.post(t, "/v1/accounts", login.AccessToken, map[string]string{"name": "School"}, &struct{}{})
	return login.AccessToken
}

// post makes something over REST.
func (m *services) post(t *testing.T, path, token string, body, into any) {
	t.Helper()
	client := from("127.0.0.1")
	defer client.CloseIdleConnections()
	data, err := json.Marshal(body)
	require.NoError(t, err)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+m.rest+path, bytes.NewReader(data))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := client.Do(req)
	require.NoError(t, err)
	answer, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	require.Less(t, res.StatusCode, 300, "%s", answer)
	if into != nil {
		require.NoError(t, json.Unmarshal(answer, into))
	}
}

// fatGRPC is a call with the message; of a stream, 100 of them.
func (m *services) fatGRPC(t *testing.T, token string, md protoreflect.MethodDescriptor, fat proto.Message) attack {
	t.Helper()
	conn, err := grpc.NewClient(m.grpc[string(md.ParentFile().Package())], grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	path := fmt.Sprintf("/%s/%s", md.Parent().FullName(), md.Name())
	return func(ctx context.Context) {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
		if !md.IsStreamingClient() {
			_ = conn.Invoke(ctx, path, fat, &emptypb.Empty{}) // refused or not
			return
		}
		stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true}, path)
		for n := 0; err == nil && n < 100; n++ {
			err = stream.SendMsg(fat)
		}
		if err == nil && stream.CloseSend() == nil {
			_ = stream.RecvMsg(&emptypb.Empty{}) // as above
		}
	}
}

// fatREST is a request with the message as its body; nil where it has no body of JSON.
func (m *services) fatREST(t *testing.T, token string, md protoreflect.MethodDescriptor, fat proto.Message) attack {
	t.Helper()
	verb, path := wire.Route(md)
	field, ok := wire.Body(md)
	if path == "" || !ok || md.IsStreamingClient() {
		return nil
	}
	body := fat.ProtoReflect()
	if field != "*" {
		body = body.Get(body.Descriptor().Fields().ByName(protoreflect.Name(field))).Message()
	}
	data, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(body.Interface())
	require.NoError(t, err)
	client := from("127.0.0.1")
	t.Cleanup(client.CloseIdleConnections)
	url := "http://" + m.rest + variable.ReplaceAllString(path, "0190a5c8-1111-7000-8000-00000000dead")
	return func(ctx context.Context) {
		req, err := http.NewRequestWithContext(ctx, verb, url, bytes.NewReader(data))
		if err != nil {
			return
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Authorization", "Bearer "+token)
		res, err := client.Do(req)
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, res.Body) // refused or not
		_ = res.Body.Close()
	}
}

// fattest is the request of an RPC with as many values as it may have, and how many those
// are.
func fattest(t *testing.T, md protoreflect.MethodDescriptor) (fat proto.Message, values int) {
	t.Helper()
	mt, err := protoregistry.GlobalTypes.FindMessageByName(md.Input().FullName())
	require.NoError(t, err)
	m := mt.New()
	left := bounds.MaxValues - 5000
	fatten(m, &left)
	return m.Interface(), bounds.MaxValues - 5000 - left
}

// fatten fills free data of a message, and lists of messages that have some.
func fatten(m protoreflect.Message, left *int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		switch {
		case fd.IsMap() || fd.Message() == nil || !fd.IsList() && fd.Message().FullName() == "google.protobuf.Value":
		case fd.IsList():
			for n := 0; n < 1000 && *left > 0; n++ {
				item := m.NewField(fd).List().NewElement()
				before := *left
				if fatten(item.Message(), left); *left == before {
					break
				}
				m.Mutable(fd).List().Append(item)
			}
		case fd.Message().FullName() == "google.protobuf.Struct":
			m.Set(fd, protoreflect.ValueOfMessage(manyKeys().ProtoReflect()))
			*left -= bounds.MaxFreeKeys
		case !strings.HasPrefix(string(fd.Message().FullName()), "google.protobuf."):
			inside := m.NewField(fd).Message()
			before := *left
			if fatten(inside, left); *left != before {
				m.Set(fd, protoreflect.ValueOfMessage(inside))
			}
		}
	}
}

// manyKeys is free data with as many keys as it may have: a value with a key takes most.
func manyKeys() *structpb.Struct {
	s := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	for i := range bounds.MaxFreeKeys {
		s.Fields[fmt.Sprintf("k%d", i)] = structpb.NewNumberValue(0)
	}
	return s
}
