package bench_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/egress"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/services/messaging"
	messagingapp "github.com/turumba/turumba/services/messaging/app"
	"github.com/turumba/turumba/services/messaging/channel/providers"
)

// mailConnections is how many connections the channel has to its server.
const mailConnections = 32

// The processes that benchmarks start: this program again.
const (
	workerCommand = "bench-worker"
	sinkCommand   = "bench-sink"
)

// BenchmarkMail is a group send by the e-mail adapter, from the recipients to the
// outcomes, with the whole ledger: a worker in a process of its own, whose memory is
// looked at, and an SMTP server in another one that drops what it gets.
func BenchmarkMail(b *testing.B) {
	s := server(b)
	for _, size := range []int{150, 20_000} {
		b.Run(fmt.Sprintf("bytes=%d", size), func(b *testing.B) {
			url := s.URL(fmt.Sprintf("mail%d", size))
			require.NoError(b, pg.EnsureDatabase(b.Context(), url))
			require.NoError(b, messagingapp.Migrate(b.Context(), url))
			_, sink := start(b, sinkCommand)
			host, port, err := net.SplitHostPort(sink)
			require.NoError(b, err)
			number, err := strconv.Atoi(port)
			require.NoError(b, err)
			pid, _ := start(b, workerCommand, url)
			text := ("Dear {FIRST_NAME},\n" + strings.Repeat("school starts on Monday, the ninth of the month.\n", size/49+1))[:size]
			sends := newAccountWith(b, openStore(b, url, func() {}), text,
				messaging.SMTP{Host: host, Port: number, TLSMode: "none", AllowPlaintext: true, FromEmail: "news@school.example"}, mailConnections)
			for b.Loop() {
				took := make([]time.Duration, rounds)
				for i := range took {
					began := clock.System().Now()
					sends.send()
					took[i] = clock.System().Now().Sub(began)
				}
				b.ReportMetric(sendSize/median(took).Seconds(), "messages/s")
				b.ReportMetric(processCPU(b, pid).Seconds()*1e6/(rounds*sendSize), "worker_µs/message")
				b.ReportMetric(float64(peakMemory(b, pid))/1024, "worker_peak_MiB")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// start runs this program as another process until the benchmark ends and returns the
// first line that it prints.
func start(b *testing.B, args ...string) (pid int, line string) {
	b.Helper()
	self, err := os.Executable()
	require.NoError(b, err)
	cmd := exec.CommandContext(context.WithoutCancel(b.Context()), self, args...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(b, err)
	out, err := cmd.StdoutPipe()
	require.NoError(b, err)
	require.NoError(b, cmd.Start())
	b.Cleanup(func() {
		require.NoError(b, in.Close())
		require.NoError(b, cmd.Wait())
	})
	line, err = bufio.NewReader(out).ReadString('\n')
	require.NoError(b, err)
	return cmd.Process.Pid, strings.TrimSpace(line)
}

// untilParentEnds ends when the other end of the standard input is closed.
func untilParentEnds() context.Context {
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // only its end counts
		stop()
	}()
	return ctx
}

// runWorker is the process of a worker on the database, with the real adapters.
func runWorker(url string) error {
	rules, err := egress.ParseAllow("127.0.0.1/32:*")
	if err != nil {
		return err
	}
	ctx := untilParentEnds()
	w, err := newWorker(ctx, url, &people{}, providers.All(providers.Config{Dialer: egress.NewDialer(egress.Options{Allow: rules}), Clock: clock.System()}))
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(os.Stdout, "ready"); err != nil {
		return err
	}
	return w.Run(ctx)
}

// runSink is the process of an SMTP server that takes everything and keeps nothing.
func runSink() error {
	ctx := untilParentEnds()
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { _ = l.Close() }) // Accept tells
	if _, err := fmt.Fprintln(os.Stdout, l.Addr()); err != nil {
		return err
	}
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		go swallow(conn)
	}
}

// swallow answers one client, several commands at a time where they come so.
func swallow(conn net.Conn) {
	defer func() { _ = conn.Close() }() // the client has gone
	in, out := bufio.NewReaderSize(conn, 32<<10), bufio.NewWriter(conn)
	say := func(line string) { _, _ = out.WriteString(line + "\r\n") }
	say("220 sink")
	inData := false
	for {
		if in.Buffered() == 0 && out.Flush() != nil {
			return
		}
		line, err := in.ReadSlice('\n')
		switch {
		case err != nil:
			return
		case inData:
			if inData = !bytes.Equal(line, []byte(".\r\n")); !inData {
				say("250 2.0.0 taken")
			}
		case bytes.HasPrefix(line, []byte("EHLO")):
			say("250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 50000000")
		case bytes.HasPrefix(line, []byte("DATA")):
			inData = true
			say("354 go ahead")
		case bytes.HasPrefix(line, []byte("QUIT")):
			say("221 bye")
			_ = out.Flush() // the last word
			return
		default:
			say("250 ok")
		}
	}
}

// peakMemory is the most memory that a process has had, in kB.
func peakMemory(b *testing.B, pid int) int {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if os.IsNotExist(err) {
		return 0 // no Linux
	}
	require.NoError(b, err)
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	require.NotNil(b, m)
	n, err := strconv.Atoi(string(m[1]))
	require.NoError(b, err)
	return n
}

// processCPU is the time that a process has had a processor, to a hundredth of a second.
func processCPU(b *testing.B, pid int) time.Duration {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if os.IsNotExist(err) {
		return 0 // no Linux
	}
	require.NoError(b, err)
	var user, system int
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	_, err = fmt.Sscan(fields[11]+" "+fields[12], &user, &system)
	require.NoError(b, err)
	return time.Duration(user+system) * 10 * time.Millisecond
}
