package grpcserver_test

import (
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/grpcserver"
)

// TestSilentServer: a connection that carries nothing any more, as when a router in
// between forgot it, ends the streams that wait on it without a deadline.
func TestSilentServer(t *testing.T) {
	t.Parallel()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = conn.Write([]byte{0, 0, 0, 4, 0, 0, 0, 0, 0}) // an empty SETTINGS frame (RFC 9113), and never another
		_, _ = io.Copy(io.Discard, conn)
		_ = conn.Close()
	}()
	conn, err := grpcserver.Mesh{ServiceToken: token}.Dial("passthrough:///"+l.Addr().String(), "worker", clock.System())
	require.NoError(t, err)
	stream, err := accountv1.NewRecipientServiceClient(conn).StreamRecipients(t.Context(), &accountv1.StreamRecipientsRequest{AccountId: accountA})
	require.NoError(t, err)
	_, err = stream.Recv()
	require.Equal(t, codes.Unavailable, status.Code(err), "%v", err)
	require.NoError(t, l.Close())
	<-gone
	require.NoError(t, conn.Close())
}
