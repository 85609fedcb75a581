// Package relay carries the messaging service's events from its outbox to the
// bus, and says what travels there (decision E2).
package relay

import (
	"log/slog"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/turumba/turumba/kit/bus"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/outbox"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/services/messaging/postgres"
)

// GroupQueue gets every event of group messages.
const GroupQueue = "group_message_processing"

const dispatchPrefix = "message.dispatch."

// channelTypes are the kinds of channel that have queues of their own.
var channelTypes = [...]string{"sms", "smpp", "telegram", "whatsapp", "messenger", "email"}

// DispatchQueue is the queue that announces chunks of a channel type and lane.
func DispatchQueue(channelType, lane string) string { return dispatchPrefix + channelType + "." + lane }

// Topology is what the bus declares. audit adds the queue that gets everything,
// which nobody but people reads; quorum asks for replicated queues.
func Topology(audit, quorum bool) bus.Topology {
	t := bus.Topology{
		Exchange: "messaging", DeadLetterExchange: "messaging.dlx", DeadLetterQueue: "messaging.dlq",
		Queues: []bus.Queue{{Name: GroupQueue, Bindings: []string{"group_message.*"}, Quorum: quorum}},
	}
	for _, channelType := range channelTypes {
		for _, lane := range []string{postgres.LaneBulk, postgres.LaneTransactional} {
			name := DispatchQueue(channelType, lane)
			t.Queues = append(t.Queues, bus.Queue{Name: name, Bindings: []string{name}, Quorum: quorum})
		}
	}
	if audit {
		t.Queues = append(t.Queues, bus.Queue{Name: "messaging_audit", Bindings: []string{"#"}, Optional: true})
	}
	return t
}

// needsConsumer says which events are published mandatory: those that start
// work. The others are news.
func needsConsumer(eventType string) bool {
	return eventType == "group_message.queued" || strings.HasPrefix(eventType, dispatchPrefix)
}

// New makes the relay of one database.
func New(db *pg.DB, b bus.Publisher, c clock.Clock, log *slog.Logger, r prometheus.Registerer) (*outbox.Relay, error) {
	metrics, err := outbox.NewMetrics(r)
	if err != nil {
		return nil, err
	}
	return &outbox.Relay{DB: db, Bus: b, NeedsConsumer: needsConsumer, Clock: c, Logger: log, Metrics: metrics}, nil
}
