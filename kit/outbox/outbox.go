// Package outbox carries events from a database transaction to the bus.
//
// A store appends an event in the transaction that changes an entity, so neither
// exists without the other. A Relay claims unpublished rows, publishes them and
// marks those the broker has confirmed; it may publish a row twice and never
// gives one up. A consumer writes an Inbox row in the transaction of its effect,
// so the effect happens once.
//
// Wake-ups by NOTIFY only make it quicker: everything works, within the poll
// interval, without them.
package outbox

import (
	"context"
	"embed"
	"fmt"
	"io/fs"

	"github.com/google/uuid"
	"google.golang.org/protobuf/encoding/protojson"

	eventv1 "github.com/turumba/turumba/gen/turumba/event/v1"
	"github.com/turumba/turumba/kit/bus"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/telemetry"
)

// MaxPayload is the largest event as JSON, in bytes. Events carry ids and
// states, never contents.
const MaxPayload = 64 << 10

// contentType is what events are on the wire.
const contentType = "application/json"

// maxType is the longest event type, in bytes.
const maxType = 100

//go:embed migrations/*.sql
var files embed.FS

// Migrations returns the tables of this package. The roles turumba_api and
// turumba_worker must exist before they run.
func Migrations() pg.MigrationSet {
	sub, err := fs.Sub(files, "migrations")
	if err != nil {
		panic(err) // the folder is compiled in
	}
	return pg.MigrationSet{Name: "outbox", FS: sub}
}

const insertEvents = `
	INSERT INTO outbox_events (id, event_type, aggregate_type, aggregate_id, traceparent, payload)
	SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::jsonb[])`

// appended is what transactions with an event wake.
type appended struct{}

// OnAppend calls wake after each commit on db that left events: Relay.Wake where the
// relay is in this process, else Notifier.Notify. It must not block.
func OnAppend(db *pg.DB, wake func()) { db.OnWake(appended{}, wake) }

// Append adds events to the outbox in tx, all in one statement. It fills in an
// empty EventId with a new UUIDv7 and an empty Traceparent from ctx. The commit wakes
// who is registered by OnAppend.
func Append(ctx context.Context, tx *pg.Tx, events ...*eventv1.Event) error {
	if len(events) == 0 {
		return nil
	}
	var c columns
	for _, ev := range events {
		if err := complete(ctx, ev); err != nil {
			return err
		}
		if err := c.add(ev); err != nil {
			return err
		}
	}
	if _, err := tx.Exec(ctx, insertEvents, c.ids, c.types, c.aggregates, c.aggregateIDs, c.traceparents, c.payloads); err != nil {
		return fmt.Errorf("append %d events to the outbox: %w", len(events), err)
	}
	tx.Wake(appended{})
	return nil
}

// columns are the arguments of insertEvents.
type columns struct {
	ids, types, aggregates, aggregateIDs, traceparents, payloads []string
}

func (c *columns) add(ev *eventv1.Event) error {
	payload, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(ev)
	if err != nil {
		return fmt.Errorf("encode event %s: %w", ev.GetEventType(), err)
	}
	if len(payload) > MaxPayload {
		return fmt.Errorf("event %s has %d bytes, want at most %d", ev.GetEventType(), len(payload), MaxPayload)
	}
	c.ids = append(c.ids, ev.GetEventId())
	c.types = append(c.types, ev.GetEventType())
	c.aggregates = append(c.aggregates, ev.GetAggregateType())
	c.aggregateIDs = append(c.aggregateIDs, ev.GetAggregateId())
	c.traceparents = append(c.traceparents, ev.GetTraceparent())
	c.payloads = append(c.payloads, string(payload))
	return nil
}

// complete fills in what may be missing and checks the rest: a row that cannot
// be published would wait for ever.
func complete(ctx context.Context, ev *eventv1.Event) error {
	if ev.GetEventId() == "" {
		id, err := uuid.NewV7()
		if err != nil {
			return fmt.Errorf("make event id: %w", err)
		}
		ev.EventId = id.String()
	}
	if id, err := uuid.Parse(ev.GetEventId()); err != nil || id.String() != ev.GetEventId() {
		return fmt.Errorf("event id %q is not a UUID in its canonical form", ev.GetEventId())
	}
	if n := len(ev.GetEventType()); n == 0 || n > maxType {
		return fmt.Errorf("event type has %d bytes, want 1 to %d", n, maxType)
	}
	if ev.GetOccurredAt() == nil || !ev.GetOccurredAt().IsValid() {
		return fmt.Errorf("event %s does not say when it occurred", ev.GetEventType())
	}
	if ev.GetTraceparent() == "" {
		ev.Traceparent = telemetry.Traceparent(ctx)
	}
	return nil
}

// SchemaVersion is the shape of events' data that this program writes. It reads that of
// the next version too, which may only add to it: while a mesh is upgraded, programs of
// two neighbouring versions share its queues (catalogue F-26).
const SchemaVersion = 1

// Decode reads the event in a message from the bus. Fields that this program
// does not know are ignored: the publisher may be newer. What is no event, or one
// of a shape that this program cannot read, is an error that tells nothing of the
// content: a consumer that returns it sends the message to the dead letters.
func Decode(m bus.Message) (*eventv1.Event, error) {
	if len(m.Body) > MaxPayload {
		return nil, fmt.Errorf("message %q has %d bytes, no event has more than %d", m.ID, len(m.Body), MaxPayload)
	}
	if t := m.Headers[bus.HeaderContentType]; t != "" && t != contentType {
		return nil, fmt.Errorf("message %q is not of the type %s", m.ID, contentType)
	}
	ev := &eventv1.Event{}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(m.Body, ev); err != nil {
		// The library's error quotes the input, which must not reach a log.
		return nil, fmt.Errorf("message %q is no event in JSON", m.ID)
	}
	if ev.GetEventId() != m.ID {
		return nil, fmt.Errorf("message %q holds another event", m.ID)
	}
	if ev.GetEventType() == "" {
		return nil, fmt.Errorf("message %q holds an event without a type", m.ID)
	}
	if ev.GetSchemaVersion() > SchemaVersion+1 {
		return nil, fmt.Errorf("message %q holds an event of version %d, this program reads %d at most", m.ID, ev.GetSchemaVersion(), SchemaVersion+1)
	}
	return ev, nil
}
