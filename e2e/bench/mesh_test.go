package bench_test

import (
	"context"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/metadata"

	"github.com/turumba/turumba/cmd/turumba/single"
	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/config"
	"github.com/turumba/turumba/kit/grpcserver"
	"github.com/turumba/turumba/kit/telemetry"
)

// mesh is everything in one process, as `turumba up` runs it, and a client outside.
type mesh struct {
	*single.Instance
	conn *grpcserver.Conn
	dir  string
}

func newMesh(b *testing.B) *mesh {
	b.Helper()
	m := &mesh{dir: b.TempDir()}
	cfg, err := config.Load[single.Config]([]string{"HTTP_ADDR=127.0.0.1:0", "GRPC_ADDR=127.0.0.1:0", "ADMIN_ADDR=127.0.0.1:0", "TURUMBA_DATA_DIR=" + m.dir, "TURUMBA_QUOTA_ACCOUNTS_PER_PERSON=0"})
	require.NoError(b, err)
	m.Instance, err = single.Start(b.Context(), cfg, telemetry.NewLogger(io.Discard, cfg.LogLevel), true)
	require.NoError(b, err)
	ctx, stop := context.WithCancel(context.WithoutCancel(b.Context()))
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	m.conn, err = grpcserver.Mesh{}.Dial("passthrough:///"+m.GRPC, "", clock.System())
	require.NoError(b, err)
	b.Cleanup(func() {
		require.NoError(b, m.conn.Close())
		stop()
		require.NoError(b, <-done)
	})
	return m
}

// password is that of everybody in the mesh.
const password = "correct horse battery staple"

// signUp makes an account with an owner and returns its id.
func (m *mesh) signUp(b *testing.B, email string) (account string) {
	b.Helper()
	auth := accountv1.NewAuthServiceClient(m.conn)
	r, err := auth.Register(b.Context(), &accountv1.RegisterRequest{Email: email, Password: password, FullName: "Bench", AccountName: "Bench"})
	require.NoError(b, err)
	code, err := m.Simulator.Code(b.Context(), email)
	require.NoError(b, err)
	verified, err := auth.VerifyEmail(b.Context(), &accountv1.VerifyEmailRequest{Email: email, Code: code, RegistrationToken: r.GetRegistrationToken()})
	require.NoError(b, err)
	return verified.GetAccountId()
}

// login returns a context with the user's token, which lasts some minutes.
func (m *mesh) login(b *testing.B, email string) context.Context {
	b.Helper()
	login, err := accountv1.NewAuthServiceClient(m.conn).Login(b.Context(), &accountv1.LoginRequest{Email: email, Password: password})
	require.NoError(b, err)
	return metadata.AppendToOutgoingContext(b.Context(), "authorization", "Bearer "+login.GetAccessToken())
}
