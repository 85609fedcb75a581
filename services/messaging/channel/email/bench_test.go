package email_test

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/config"
	"github.com/turumba/turumba/kit/egress"
	"github.com/turumba/turumba/services/messaging/channel"
	"github.com/turumba/turumba/services/messaging/channel/email"
	"github.com/turumba/turumba/sim"
)

// loopback returns the real dialer with an exception for this machine.
func loopback(t testing.TB) *egress.Dialer {
	t.Helper()
	rules, err := egress.ParseAllow("127.0.0.1/32:*")
	require.NoError(t, err)
	return egress.NewDialer(egress.Options{Allow: rules})
}

// startSim runs a simulator until the test ends.
func startSim(t testing.TB, cfg sim.Config) *sim.Server {
	t.Helper()
	if cfg.Journal == "" {
		cfg.Journal = filepath.Join(t.TempDir(), "journal.jsonl")
	}
	cfg.Clock = clock.System()
	server, err := sim.New(cfg)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	return server
}

// settingsFor returns plaintext settings for an address.
func settingsFor(t testing.TB, addr string) channel.EmailSettings {
	t.Helper()
	host, text, err := net.SplitHostPort(addr)
	require.NoError(t, err)
	port, err := strconv.Atoi(text)
	require.NoError(t, err)
	return channel.EmailSettings{
		Host: host, Port: port, TLS: channel.TLSNone, AllowPlaintext: true,
		FromEmail: "news@sender.example", FromName: "Turumba News",
		Username: "user", Password: config.Secret("correct horse"), Connections: 1,
	}
}

func benchmarkSend(b *testing.B, addr string, connections, size int) {
	b.Helper()
	set := settingsFor(b, addr)
	set.Connections, set.MaxPerConnection = connections, channel.DefaultMaxPerConnection
	sender, err := email.New(email.Config{Dialer: loopback(b), Clock: clock.System()}).Open(set)
	require.NoError(b, err)
	defer sender.Close()
	text := strings.Repeat(strings.Repeat("hello ", 11)+"\n", size/67+1)[:size]
	at := clock.System().Now()
	var n atomic.Int64
	b.SetParallelism(connections)
	b.ReportAllocs()
	b.SetBytes(int64(size))
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			i := n.Add(1)
			res := sender.Send(context.Background(), channel.Message{
				ID: fmt.Sprintf("0190a000-0000-7000-8000-%012d", i), To: fmt.Sprintf("contact%d@example.test", i),
				Subject: "Your order", Text: text, CreatedAt: at,
			})
			if res.Outcome != channel.Accepted {
				b.Fatalf("%+v", res)
			}
		}
	})
	b.ReportMetric(float64(n.Load())/b.Elapsed().Seconds(), "msgs/s")
}

// BenchmarkSend sends to the simulator in the same process, journal and fsync
// included.
func BenchmarkSend(b *testing.B) {
	for _, connections := range []int{1, 16, 64} {
		for _, size := range []int{150, 20000} {
			b.Run(fmt.Sprintf("connections=%d/bytes=%d", connections, size), func(b *testing.B) {
				server := startSim(b, sim.Config{Username: "user", Password: "correct horse"})
				benchmarkSend(b, server.SMTPAddr(), connections, size)
			})
		}
	}
}

// BenchmarkSendReference sends to a general SMTP server library that drops what
// it gets: what the simulator would cost if it were built on one.
func BenchmarkSendReference(b *testing.B) {
	for _, size := range []int{150, 20000} {
		b.Run(fmt.Sprintf("connections=16/bytes=%d", size), func(b *testing.B) {
			_, addr := startReference(b, false)
			benchmarkSend(b, addr, 16, size)
		})
	}
}
