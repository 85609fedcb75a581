package directory_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
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
