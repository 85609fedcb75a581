package observe_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/cmd/turumba/single"
	"github.com/turumba/turumba/e2e/world"
	"github.com/turumba/turumba/kit/bus/rabbitmq/rabbittest"
	simapp "github.com/turumba/turumba/sim/app"
)

// TestMain is also the simulator, which the mesh starts as a process of its own.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == single.SimulatorCommand {
		os.Exit(simapp.Main(context.Background(), os.Environ(), os.Args[2:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// patience is how long a send and the export of its spans may take.
const patience = 30 * time.Second

// TestOneTraceFromRESTToProvider: one trace id in every hop, for a single message and
// for a group message, over both buses; and the metrics of what happened.
func TestOneTraceFromRESTToProvider(t *testing.T) {
	t.Parallel()
	for name, env := range map[string]func(t *testing.T) []string{
		"in process": func(*testing.T) []string { return nil },
		"RabbitMQ":   func(t *testing.T) []string { t.Helper(); return []string{"AMQP_URL=" + rabbittest.Start(t).URL()} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, admin := newCollector(t), freeAddress(t)
			w := world.New(t, append(env(t), "OTEL_EXPORTER_OTLP_ENDPOINT="+c.url, "ADMIN_ADDR="+admin)...)
			traces(t, w, c)
			metrics(t, "http://"+admin+"/metrics")
		})
	}
}

func traces(t *testing.T, w *world.World, c *collector) {
	t.Helper()
	const single, group = "4bf92f3577b34da6a3ce929d0e0e4736", "0af7651916cd43dd8448eb211c80319c"
	post(t, w, single, "/v1/messages", fmt.Sprintf(`{"account_id":%q,"channel_id":%q,"delivery_address":"one@golden.example","message_body":"hello"}`, w.Vars["account_id"], w.Vars["channel_id"]))
	post(t, w, group, "/v1/group-messages/"+w.Vars["draft_id"]+"/send", "")
	for trace, hops := range map[string][]string{
		single: {
			"HTTP POST", "MessageService/CreateMessage",
			"publish message.dispatch.email.transactional", "take message.dispatch.email.transactional", "dispatch transactional", "send email smtp",
		},
		group: {
			"HTTP POST", "GroupMessageService/SendGroupMessage", "publish group_message.queued", "take group_message_processing", "fan out",
			"RecipientService/StreamRecipients", "dispatch bulk", "send email smtp", // the chunk goes on in memory
		},
	} {
		missing := &lateText{func() string {
			return fmt.Sprintf("missing %q of what came: %v", c.missing(trace, hops), c.names(trace))
		}}
		require.Eventually(t, func() bool { return len(c.missing(trace, hops)) == 0 }, patience, 50*time.Millisecond, "%v", missing)
	}
}

// lateText is made when it is printed.
type lateText struct{ text func() string }

// String implements fmt.Stringer.
func (l *lateText) String() string { return l.text() }

// post calls REST as the owner, in a trace that the client began.
func post(t *testing.T, w *world.World, trace, path, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.BaseURL+path, strings.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+w.Token("owner"))
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Traceparent", "00-"+trace+"-00f067aa0ba902b7-01")
	res, err := w.HTTP.Do(req)
	require.NoError(t, err)
	answer, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	require.Less(t, res.StatusCode, 300, "%s", answer)
	require.True(t, json.Valid(answer))
}

// wanted are the metrics of functional-spec 14.6 that exist so far, and ours beside
// them. turumba_webhook_response_seconds comes with webhooks.
var wanted = []string{
	`turumba_messages_dispatched_total{channel_type="email",class="ok",provider="smtp",status="sent"}`,
	`turumba_dispatch_duration_seconds_count{channel_type="email",provider="smtp"}`,
	`turumba_dispatch_queue_depth{channel_type="email",lane="bulk"}`,
	`turumba_dispatch_queue_depth{channel_type="email",lane="retry"}`,
	`turumba_dispatch_queue_oldest_seconds{channel_type="email",lane="transactional"}`,
	`turumba_dispatch_failure_rate{channel_type="email"}`,
	`turumba_group_message_fanout_duration_seconds_count`,
	`turumba_fanout_recipients_total{channel_type="email",result="written"}`,
	`turumba_outbox_pending_count`, `turumba_outbox_oldest_seconds`, `turumba_outbox_published_total`, `turumba_outbox_latency_seconds_count`,
	`turumba_bus_published_total{result="ok"}`, `turumba_bus_handled_total{queue="group_message_processing",result="ok"}`,
	`turumba_http_request_duration_seconds_count{code="200",method="POST"}`, `turumba_http_open_requests`,
	`turumba_rpc_duration_seconds_count{code="OK",rpc="MessageService/CreateMessage",service="messaging"}`,
	`turumba_db_connections{pool="worker",state="busy"}`, `turumba_db_waits_total{pool="messaging"}`, `turumba_db_wait_seconds_total{pool="account"}`,
	`turumba_loop_last_turn_age_seconds{loop="fanout"}`, `turumba_loop_last_turn_age_seconds{loop="import"}`, `turumba_loop_last_turn_age_seconds{loop="mail"}`,
	`turumba_loop_last_turn_age_seconds{loop="outbox.relay"}`, `turumba_loop_last_turn_age_seconds{loop="upkeep.leases"}`,
	`turumba_leases_expired_total`, `turumba_fanout_leases_lost_total`, `turumba_build_info`,
}

// private is what no label may hold: ids and addresses, of which there is no end.
var private = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-7|@|\+\d{6}`)

// metrics reads what the operators' listener shows. Those that only trouble makes
// (rate limits, pauses, lost leases by lane, unknown outcomes) are not asked for.
func metrics(t *testing.T, url string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	require.NoError(t, err)
	res, err := client.Do(req)
	require.NoError(t, err)
	raw, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	text := string(raw)
	for _, name := range wanted {
		require.Contains(t, text, "\n"+name, "missing")
	}
	unit := regexp.MustCompile(`_(total|seconds|count|depth|rate|info|connections|streams|requests|in_work)$`)
	documented, err := os.ReadFile("../../docs/recipes/operating.md")
	require.NoError(t, err)
	for line := range strings.Lines(text) {
		if !strings.Contains(line, "turumba_") {
			continue
		}
		require.NotRegexp(t, private, line)
		if fields := strings.Fields(line); fields[0] == "#" && fields[1] == "TYPE" {
			require.Regexp(t, unit, fields[2], "a metric says what it counts in")
			if fields[2] != "turumba_build_info" {
				require.Contains(t, string(documented), "`"+fields[2]+"`")
			}
		}
	}
}

// TestDashboardAndAlertsNameWhatExists reads the families that the code registers
// from its documentation, which TestOneTraceFromRESTToProvider holds to the truth.
func TestDashboardAndAlertsNameWhatExists(t *testing.T) {
	t.Parallel()
	documented, err := os.ReadFile("../../docs/recipes/operating.md")
	require.NoError(t, err)
	family := regexp.MustCompile(`turumba_[a-z_]+`)
	for _, file := range []string{"../../deploy/grafana/turumba.json", "../../deploy/prometheus/alerts.yaml"} {
		raw, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, name := range family.FindAllString(string(raw), -1) {
			name = strings.TrimSuffix(strings.TrimSuffix(name, "_bucket"), "_seconds_count")
			require.Contains(t, string(documented), "`"+name, "%s: %s", file, name)
		}
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	return l.Addr().String()
}
