package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"

	"github.com/turumba/turumba/cmd/turumba/single"
	"github.com/turumba/turumba/kit/config"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/pg/embedded"
	"github.com/turumba/turumba/services/messaging/postgres"
)

// Operator is where an operator's command finds what is running.
type Operator struct {
	DataDir     string        `env:"TURUMBA_DATA_DIR" flag:"data-dir" help:"folder of a running turumba; default: that of the user"`
	DatabaseURL config.Secret `env:"DATABASE_URL" help:"PostgreSQL with the database turumba_messaging; default: that of the running turumba"`
	JSON        bool          `env:"TURUMBA_JSON" flag:"json" help:"print one JSON object"`
}

// Validate reports what Load cannot see by the types.
func (o Operator) Validate() error {
	if u, err := url.Parse(o.DatabaseURL.Reveal()); o.DatabaseURL != "" && (err != nil || (u.Scheme != "postgres" && u.Scheme != "postgresql")) {
		return errors.New("DATABASE_URL is not a PostgreSQL URL (expected postgres://user:password@host:port/database)")
	}
	return nil
}

// messagingURL is the messaging service's database.
func (o Operator) messagingURL(ctx context.Context) (string, error) {
	const database = "turumba_messaging"
	if o.DatabaseURL != "" {
		u, _ := url.Parse(o.DatabaseURL.Reveal()) // Validate has parsed it
		u.Path = "/" + database
		return u.String(), nil
	}
	dir := o.DataDir
	if dir == "" {
		var err error
		if dir, err = single.UserDataDir(); err != nil {
			return "", err
		}
	}
	return embedded.Find(ctx, dir, database)
}

// store opens the messaging service's store as a worker has it.
func (o Operator) store(ctx context.Context) (*postgres.Store, func(), error) {
	at, err := o.messagingURL(ctx)
	if err != nil {
		return nil, nil, err
	}
	db, err := pg.Open(ctx, pg.Config{URL: at, Role: pg.RoleWorker, Name: "turumba", MaxConns: 2})
	if err != nil {
		return nil, nil, err
	}
	s, err := postgres.New(db, make([]byte, 32), func() {}) // it shows no pages; the relay polls
	if err != nil {
		db.Close()
		return nil, nil, err
	}
	return s, db.Close, nil
}

// printJSON writes v as one object.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	return nil
}
