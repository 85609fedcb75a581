// Package postgres is the messaging service's store, for its API and for the
// worker. Every method takes the scope (account ids) explicitly and every query
// filters on it; row-level security and the tenant views are the second net.
// The queue tables (fanout_jobs, dispatch_chunks, message_due) hold only ids and
// times and have no tenant.
package postgres

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventv1 "github.com/turumba/turumba/gen/turumba/event/v1"
	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/outbox"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/query"
	"github.com/turumba/turumba/kit/quota"
	"github.com/turumba/turumba/kit/telemetry"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrations are the sets that the service's database needs.
func Migrations() []pg.MigrationSet {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		panic(err) // the folder is embedded above
	}
	return []pg.MigrationSet{quota.Migrations(), {Name: "messaging", FS: sub}, pg.IdempotencyMigrations(), outbox.Migrations()}
}

// Store is the messaging service's PostgreSQL.
type Store struct {
	db *pg.DB

	channels, templates, groups, messages, skips, suppressions, erasures *query.Spec
}

// New makes a store. tokenKey authenticates page tokens; notify is called after
// a commit that left events in the outbox.
func New(db *pg.DB, tokenKey []byte, notify func()) (*Store, error) {
	outbox.OnAppend(db, notify)
	s := &Store{db: db}
	for _, def := range []struct {
		spec  **query.Spec
		make  func(tokenKey []byte) (*query.Spec, error)
		named string
	}{
		{&s.channels, channelSpec, "channels"},
		{&s.templates, templateSpec, "templates"},
		{&s.groups, groupSpec, "group messages"},
		{&s.messages, messageSpec, "messages"},
		{&s.skips, skipSpec, "skipped recipients"},
		{&s.suppressions, suppressionSpec, "suppressions"},
		{&s.erasures, erasureSpec, "message erasures"},
	} {
		spec, err := def.make(tokenKey)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", def.named, err)
		}
		*def.spec = spec
	}
	return s, nil
}

// DB is the store's database, for the transactions of handlers.
func (s *Store) DB() *pg.DB { return s.db }

// event appends a domain event of an account to the outbox.
func event(ctx context.Context, tx *pg.Tx, eventType, aggregate, id, accountID string, data map[string]string) error {
	return outbox.Append(ctx, tx, newEvent(ctx, tx, eventType, aggregate, id, accountID, data))
}

func newEvent(ctx context.Context, tx *pg.Tx, eventType, aggregate, id, accountID string, data map[string]string) *eventv1.Event {
	fields := make(map[string]*structpb.Value, len(data))
	for k, v := range data {
		fields[k] = structpb.NewStringValue(v)
	}
	return &eventv1.Event{
		EventType: eventType, AggregateType: aggregate, AggregateId: id, AccountId: accountID,
		UserId: auth.From(ctx).UserID, RequestId: telemetry.RequestID(ctx), OccurredAt: timestamppb.New(tx.Now),
		SchemaVersion: 1, Data: &structpb.Struct{Fields: fields},
	}
}

// ignore is err, unless it is the one that does not matter.
func ignore(err, one error) error {
	if errors.Is(err, one) {
		return nil
	}
	return err
}

// interval is a duration as PostgreSQL reads it.
func interval(d time.Duration) string { return fmt.Sprintf("%d microseconds", d.Microseconds()) }

// lockOne reads one row FOR UPDATE.
func lockOne[T any](ctx context.Context, tx *pg.Tx, notFound error, sql string, args ...any) (*T, error) {
	rows, err := tx.Query(ctx, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("lock row: %w", err)
	}
	return pg.One[T](notFound)(rows)
}

// list runs a compiled list.
func list[T any](ctx context.Context, s *Store, spec *query.Spec, r query.Request, scope []string) (*query.Page[*T], error) {
	c, err := query.Compile(spec, r, scope)
	if err != nil {
		return nil, err
	}
	return query.List(ctx, s.db.Pool(), c, pgx.RowToAddrOfStructByName[T])
}

// skipSpec is the list of a send's skipped recipients.
func skipSpec(tokenKey []byte) (*query.Spec, error) {
	return query.SpecFor((&messagingv1.SkippedRecipient{}).ProtoReflect().Descriptor(), query.Table{
		From: "group_message_skips", Select: []string{"id, coalesce(contact_id::text, '') AS contact_id, delivery_address, reason, created_at"}, TokenKey: tokenKey,
		Columns: map[string]query.Column{
			"group_message_id": uuidColumn("group_message_id"), "contact_id": {Kind: query.KindUUID}, "reason": {NotNull: true}, "created_at": {NotNull: true},
		},
	})
}
