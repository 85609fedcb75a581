package directory_test

import (
	"context"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/structpb"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	optionsv1 "github.com/turumba/turumba/gen/turumba/options/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/services/messaging/directory"
)

// senders is an account service with one account and one user.
type senders struct {
	grpc.ClientConnInterface
}

func (senders) Invoke(_ context.Context, _ string, args, reply any, _ ...grpc.CallOption) error {
	req, ok := args.(*accountv1.GetSenderRequest)
	resp, known := reply.(*accountv1.GetSenderResponse)
	switch {
	case !ok || !known:
		return apierr.New(errorv1.Reason_REASON_NOT_IMPLEMENTED, "not in this test")
	case req.GetAccountId() != "school":
		return apierr.NotFound("account")
	case req.GetUserId() == "ada":
		resp.SenderName, resp.SenderEmail = "Ada", "ada@example.org"
	case req.GetUserId() != "":
		return apierr.NotFound("user")
	}
	resp.AccountName = "School"
	return nil
}

// pages is an account service whose lists end after one contact, as they do where contacts
// are heavy.
type pages struct {
	grpc.ClientConnInterface
}

func (pages) Invoke(_ context.Context, _ string, args, reply any, _ ...grpc.CallOption) error {
	req, ok := args.(*accountv1.ListContactsRequest)
	resp, known := reply.(*accountv1.ListContactsResponse)
	if !ok || !known {
		return apierr.New(errorv1.Reason_REASON_NOT_IMPLEMENTED, "not in this test")
	}
	ids := strings.Split(strings.TrimPrefix(req.GetFilter()[1], "id:in:"), ",")
	at, _ := strconv.Atoi(req.GetPageToken()) // 0 on the first page
	metadata, err := structpb.NewStruct(map[string]any{"city": "Ulm", "plan": "free", "telegram_chat_id": "7"})
	resp.Data, resp.Meta = []*accountv1.Contact{{Id: ids[at], Metadata: metadata}}, &optionsv1.ListMeta{}
	if at++; at < len(ids) {
		resp.Meta.NextPageToken = strconv.Itoa(at)
	}
	return err
}

// TestContactsOfManyPages: no contact is lost where a page ends, and of the attributes those
// are kept that texts name or messages are sent to.
func TestContactsOfManyPages(t *testing.T) {
	t.Parallel()
	ids := make([]string, 250)
	for i := range ids {
		ids[i] = strconv.Itoa(i)
	}
	found, err := directory.New(pages{}).Contacts(t.Context(), "school", ids, []string{"CITY"})
	require.NoError(t, err)
	require.Len(t, found, len(ids))
	require.Equal(t, map[string]string{"CITY": "Ulm", "TELEGRAM_CHAT_ID": "7"}, found["249"].Attributes)
}

func TestSender(t *testing.T) {
	t.Parallel()
	d := directory.New(senders{})
	for user, want := range map[string][3]string{
		"ada": {"School", "Ada", "ada@example.org"}, "": {"School", "", ""}, "gone": {"School", "", ""},
	} {
		account, name, email, err := d.Sender(t.Context(), "school", user)
		require.NoError(t, err)
		require.Equal(t, want, [3]string{account, name, email}, user)
	}
	_, _, _, err := d.Sender(t.Context(), "another", "ada")
	require.True(t, apierr.HasReason(err, errorv1.Reason_REASON_NOT_FOUND))
}
