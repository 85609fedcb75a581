package chaos_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/bus/rabbitmq/rabbittest"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/pg/embedded"
)

// TestKillMesh runs the four binaries with a real RabbitMQ and kills the worker
// and the broker in turns.
func TestKillMesh(t *testing.T) {
	t.Parallel()
	recipients, kills := size(t)
	broker := rabbittest.Start(t)
	simulator := startSimulator(t)
	server, err := embedded.Start(t.Context(), embedded.Options{DataDir: t.TempDir(), Clock: clock.System()})
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 20*time.Second)
		defer cancel()
		require.NoError(t, server.Stop(ctx))
	})
	host, smtp := simulator.HostPort()
	common := []string{
		"TURUMBA_MASTER_KEY=" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", 32))),
		"SERVICE_TOKEN=" + strings.Repeat("s", 32),
		fmt.Sprintf("EGRESS_ALLOW=%s/32:%d", host, smtp),
	}
	with := func(env ...string) []string { return append(env, common...) }
	admin := func() (setting, ready string) {
		at := port(t)
		return "ADMIN_ADDR=" + at, "http://" + at + "/readyz"
	}
	accountAddr, messagingAddr, httpAddr := port(t), port(t), port(t)

	at, ready := admin()
	newProgram(t, binary(t, "services/account/cmd/account"), ready, nil, with(at, "GRPC_ADDR="+accountAddr, "DATABASE_URL="+server.URL("turumba_account"),
		fmt.Sprintf("MAIL_URL=smtp://%s:%d?plaintext=true&from=no-reply@turumba.example", host, smtp))...)
	at, ready = admin()
	newProgram(t, binary(t, "services/messaging/cmd/messaging"), ready, nil, with(at, "GRPC_ADDR="+messagingAddr, "DATABASE_URL="+server.URL("turumba_messaging"),
		"ACCOUNT_ADDR=dns:///"+accountAddr)...)
	at, ready = admin()
	worker := newProgram(t, binary(t, "worker/cmd/worker"), ready, nil, with(at, "DATABASE_URL="+server.URL("turumba_messaging"),
		"ACCOUNT_ADDR=dns:///"+accountAddr, "AMQP_URL="+broker.URL())...)
	at, ready = admin()
	newProgram(t, binary(t, "gateway/cmd/gateway"), ready, nil, with(at, "HTTP_ADDR="+httpAddr,
		"ACCOUNT_ADDR=dns:///"+accountAddr, "MESSAGING_ADDR=dns:///"+messagingAddr)...)

	b := &book{t: t, simulator: simulator, total: recipients, url: server.URL("turumba_messaging")}
	b.slow(20)
	done := b.send("http://" + httpAddr)
	for k := range kills {
		b.until(recipients*k/kills + 1)
		if k%2 == 0 {
			worker.kill()
			worker.start()
		} else {
			broker.Kill()
			broker.Restart(t)
		}
		b.check()
	}
	b.slow(0)
	require.NoError(t, <-done)
	b.compare(kills)
}
