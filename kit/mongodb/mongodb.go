// Package mongodb is the way to MongoDB. A Collection adds the tenant to every
// statement itself, whatever the filter says, so no caller can forget it; the
// driver's own collections are used nowhere else. Lists come from the contract as in
// SQL: kit/query checks them, List runs them.
//
// What a caller wrote stands only where MongoDB expects a value, below an explicit
// operator; no value and no key can become an operator or a path.
package mongodb

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/connstring"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/tcp"
)

const (
	// opLimit is how long an operation may take in all, whatever the caller's context says
	// (ADR 0040).
	opLimit = 10 * time.Second
	// pingLimit is how long a ping may take.
	pingLimit = 2 * time.Second
	// indexLimit is how long it may take to make the indexes of a collection: it may have
	// millions of documents.
	indexLimit = 10 * time.Minute
	// selectTimeout is how long a call waits for a server that can serve it.
	selectTimeout = 5 * time.Second
	// A server is asked every heartbeat over a connection of its own. One that does not
	// answer within answerTimeout loses all its connections, those in use too.
	heartbeat     = 5 * time.Second
	answerTimeout = 3 * time.Second
	// listTimeout is how long a list may take, as in SQL.
	listTimeout = 5 * time.Second
	// countBudget is how long the total of a list may take (decision C3).
	countBudget = 50 * time.Millisecond
)

// Config says where the database is.
type Config struct {
	// URL is mongodb://… or mongodb+srv://…, with the database in its path.
	URL string
	// Database is used when the URL names none.
	Database string
	// Name is what the server calls this client.
	Name  string
	Clock clock.Clock
}

// DB is one database.
type DB struct {
	client *mongo.Client
	db     *mongo.Database
	clock  clock.Clock
}

// Open connects and proves that the server answers. Writes are acknowledged by a
// majority and from the journal: what was answered is kept.
func Open(ctx context.Context, cfg Config) (*DB, error) {
	parsed, err := connstring.ParseAndValidate(cfg.URL)
	if err != nil {
		return nil, errors.New("the URL of MongoDB is not valid: it must be mongodb://user:password@host:port/database") // the cause would tell the password
	}
	name := parsed.Database
	if name == "" {
		name = cfg.Database
	}
	journal := true
	client, err := mongo.Connect(options.Client().ApplyURI(cfg.URL).SetAppName(cfg.Name).SetServerSelectionTimeout(selectTimeout).
		SetDialer(tcp.Dialer()).SetConnectTimeout(answerTimeout).SetHeartbeatInterval(heartbeat).
		SetWriteConcern(&writeconcern.WriteConcern{W: "majority", Journal: &journal}).SetReadPreference(readpref.Primary()))
	if err != nil {
		return nil, fmt.Errorf("connect to MongoDB: %w", err)
	}
	db := &DB{client: client, db: client.Database(name), clock: cfg.Clock}
	if err := db.start(ctx); err != nil {
		db.Close()
		return nil, err
	}
	return db, nil
}

// Ping reports whether the server answers.
func (db *DB) Ping(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, pingLimit)
	defer cancel()
	return db.translate(ctx, "ping", db.client.Ping(limited, readpref.Primary()))
}

// start waits until the server answers.
func (db *DB) start(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, opLimit)
	defer cancel()
	return db.translate(ctx, "ping", db.client.Ping(limited, readpref.Primary()))
}

// Close disconnects.
func (db *DB) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), selectTimeout)
	defer cancel()
	_ = db.client.Disconnect(ctx) // nothing is left to be lost
}

// Now is the time, in milliseconds as MongoDB keeps it, UTC.
func (db *DB) Now() time.Time { return db.clock.Now().UTC().Truncate(time.Millisecond) }

// Pause waits, unless ctx ends.
func (db *DB) Pause(ctx context.Context, d time.Duration) error { return clock.Sleep(ctx, db.clock, d) }

// Index is one index of a collection.
type Index struct {
	// Fields are the paths, ascending.
	Fields []string
	Unique bool
}

// Collection returns a collection and makes its indexes where they are missing.
func (db *DB) Collection(ctx context.Context, name string, indexes ...Index) (*Collection, error) {
	c := &Collection{db: db, c: db.db.Collection(name), limit: opLimit}
	if len(indexes) == 0 {
		return c, nil
	}
	models := make([]mongo.IndexModel, len(indexes))
	for i, index := range indexes {
		keys := bson.D{}
		for _, f := range index.Fields {
			keys = append(keys, bson.E{Key: f, Value: int32(1)})
		}
		models[i] = mongo.IndexModel{Keys: keys}
		if index.Unique {
			models[i].Options = options.Index().SetUnique(true)
		}
	}
	limited, cancel := context.WithTimeout(ctx, indexLimit)
	defer cancel()
	_, err := c.c.Indexes().CreateMany(limited, models)
	return c, db.translate(ctx, "make indexes of "+name, err)
}

// translate makes UNAVAILABLE of a server that cannot be reached, did not answer in time
// or cannot work now; what became of a write is then not known. Where the caller's own
// context, ctx, has ended, that is told. Other errors are internal ones.
func (db *DB) translate(ctx context.Context, what string, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() == nil && (mongo.IsNetworkError(err) || mongo.IsTimeout(err) || errors.Is(err, mongo.ErrClientDisconnected) || cannotNow(err)) {
		return apierr.New(errorv1.Reason_REASON_UNAVAILABLE, "the document store cannot be reached").WithRetryAfter(time.Second).Wrap(err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// cannotNow reports whether a server that answers cannot do now what was asked.
func cannotNow(err error) bool {
	var server mongo.ServerError
	if !errors.As(err, &server) {
		return false
	}
	return server.HasErrorLabel("RetryableWriteError") || server.HasErrorLabel("TransientTransactionError") ||
		slices.ContainsFunc(busyCodes(), server.HasErrorCode)
}

// busyCodes are the codes of a server's state (src/mongo/base/error_codes.yml): it is not
// the primary, or no longer; shuts down; cannot reach the others, or enough of them for the
// write concern; is out of disk, time or locks; or lost a cursor with its predecessor.
func busyCodes() []int {
	return []int{
		10107, 13435, 13436, 11600, 11602, 189, 91, 216, // primary and shutdown
		6, 7, 89, 202, 9001, 317, 133, 64, 100, // the others
		14031, 24, 46, 50, 112, 262, 43, 11601, 462, // disk, locks, time, cursors, load
	}
}
