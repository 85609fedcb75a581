package rest

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
)

// TestEncodeAgainstProtojson: with enum words turned back into names, our bytes
// mean exactly what protojson writes.
func TestEncodeAgainstProtojson(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := drawTemplate(t)
		ours, err := Marshal(m)
		require.NoError(t, err)
		theirs, err := protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: true}.Marshal(m)
		require.NoError(t, err)
		named, err := renameEnums(ours, m.ProtoReflect().Descriptor())
		require.NoError(t, err)
		require.JSONEq(t, string(theirs), string(named))

		back := &messagingv1.Template{}
		require.NoError(t, Unmarshal(ours, back))
		require.True(t, proto.Equal(m, back))
	})
}

func drawTemplate(t *rapid.T) *messagingv1.Template {
	text := rapid.String()
	m := &messagingv1.Template{
		Id:               text.Draw(t, "id"),
		Body:             text.Draw(t, "body"),
		Variables:        rapid.SliceOfN(text, 0, 3).Draw(t, "variables"),
		DefaultValues:    rapid.MapOfN(text, text, 0, 3).Draw(t, "defaults"),
		ChannelType:      messagingv1.ChannelType(rapid.Int32Range(0, 6).Draw(t, "type")),
		FallbackStrategy: messagingv1.FallbackStrategy(rapid.Int32Range(0, 3).Draw(t, "fallback")),
		IsActive:         rapid.Bool().Draw(t, "active"),
	}
	if rapid.Bool().Draw(t, "has_created_at") {
		m.CreatedAt = &timestamppb.Timestamp{
			Seconds: rapid.Int64Range(0, 4102444800).Draw(t, "seconds"),
			Nanos:   rapid.SampledFrom([]int32{0, 1, 1000, 120000000, 999999999}).Draw(t, "nanos"),
		}
	}
	return m
}

func TestEnumWords(t *testing.T) {
	t.Parallel()
	b, err := Marshal(&messagingv1.Message{Status: messagingv1.MessageStatus_MESSAGE_STATUS_PERMANENTLY_FAILED})
	require.NoError(t, err)
	require.Contains(t, string(b), `"status":"permanently_failed"`)

	for _, word := range []string{`"queued"`, `"GROUP_MESSAGE_STATUS_QUEUED"`, `3`} {
		m := &messagingv1.CreateGroupMessageRequest{}
		require.NoError(t, Unmarshal([]byte(`{"status":`+word+`}`), m), word)
		require.Equal(t, messagingv1.GroupMessageStatus_GROUP_MESSAGE_STATUS_QUEUED, m.GetStatus())
	}
	err = Unmarshal([]byte(`{"status":"flying"}`), &messagingv1.CreateGroupMessageRequest{})
	require.ErrorContains(t, err, "flying")
	require.ErrorContains(t, err, "queued")
}

// TestStructIsNeverTouched: words that look like enums inside free data stay.
func TestStructIsNeverTouched(t *testing.T) {
	t.Parallel()
	in := `{"status":"queued","metadata":{"status":"queued","list":["draft",{"status":"sent"}]},"custom_values":{"status":"queued"}}`
	m := &messagingv1.CreateGroupMessageRequest{}
	require.NoError(t, Unmarshal([]byte(in), m))
	require.Equal(t, "queued", m.GetCustomValues()["status"])
	require.Equal(t, "queued", m.GetMetadata().GetFields()["status"].GetStringValue())
	out, err := Marshal(&messagingv1.GroupMessage{Metadata: m.GetMetadata()})
	require.NoError(t, err)
	var got struct{ Metadata map[string]any }
	require.NoError(t, json.Unmarshal(out, &got))
	require.Equal(t, map[string]any{"status": "queued", "list": []any{"draft", map[string]any{"status": "sent"}}}, got.Metadata)
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	for name, in := range map[string]string{
		"unknown key":    `{"naem":"x"}`,
		"trailing data":  `{"name":"x"} {"name":"y"}`,
		"duplicate key":  `{"name":"x","name":"y"}`,
		"wrong type":     `{"name":5}`,
		"not an object":  `[1]`,
		"no JSON":        `hello`,
		"half an object": `{"name":"x"`,
		"enum in array":  `{"status":["queued"]}`,
	} {
		require.Error(t, Unmarshal([]byte(in), &messagingv1.CreateGroupMessageRequest{}), name)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"status":"queued","metadata":{"a":[1,null]},"custom_values":{"A":"b"}}`))
	f.Add([]byte(`{"credentials":{"smtp":{"host":"h","tls_mode":"implicit"}},"on_unknown":"resend"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, m := range []proto.Message{&messagingv1.CreateGroupMessageRequest{}, &messagingv1.CreateChannelRequest{}} {
			if Unmarshal(data, m) != nil {
				continue
			}
			b, err := Marshal(m)
			if err != nil {
				t.Fatalf("what was read cannot be written: %v", err)
			}
			again := m.ProtoReflect().New().Interface()
			if err := Unmarshal(b, again); err != nil {
				t.Fatalf("what was written cannot be read: %v\n%s", err, b)
			}
			if !proto.Equal(m, again) && !hasNaN(m) {
				t.Fatalf("round trip changed the message: %s", b)
			}
		}
	})
}

// hasNaN: a Struct with NaN is never equal to itself.
func hasNaN(m proto.Message) bool {
	g, ok := m.(*messagingv1.CreateGroupMessageRequest)
	return ok && !proto.Equal(g.GetMetadata(), proto.CloneOf[*structpb.Struct](g.GetMetadata()))
}

func BenchmarkEncodeList(b *testing.B) {
	page := &messagingv1.ListMessagesResponse{}
	for range 50 {
		page.Data = append(page.Data, &messagingv1.Message{
			Id: "0190a5c8-1111-7000-8000-000000000000", AccountId: "0190a5c8-1111-7000-8000-000000000001",
			Status: messagingv1.MessageStatus_MESSAGE_STATUS_SENT, DeliveryAddress: "someone@example.org",
			MessageBody: "Hello Abebe, your class starts on Monday.", CreatedAt: timestamppb.New(timestamppb.Now().AsTime()), SentAt: timestamppb.Now(),
		})
	}
	b.Run("ours", func(b *testing.B) {
		for b.Loop() {
			_, _ = Marshal(page)
		}
	})
	b.Run("protojson", func(b *testing.B) {
		o := protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: true}
		for b.Loop() {
			_, _ = o.Marshal(page)
		}
	})
}
