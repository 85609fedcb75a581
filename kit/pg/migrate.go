package pg

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

// MigrationSet is a folder of forward-only SQL migrations with a version of its
// own in the database.
type MigrationSet struct {
	// Name names the version table: goose_<name>.
	Name string
	// FS has the *.sql files at its root.
	FS fs.FS
}

// rolesLock guards the creation of the roles, which a cluster has once.
const rolesLock = 7_319_001

// Migrate brings the database at adminURL to the newest version of every set,
// in order, under a lock, so that several processes may start at once. It
// creates the roles and the extension that the product uses; tables belong to
// turumba_owner. A database that is newer than the code is an error.
func Migrate(ctx context.Context, adminURL string, sets ...MigrationSet) error {
	if err := prepare(ctx, adminURL); err != nil {
		return err
	}
	cfg, err := pgx.ParseConfig(adminURL)
	if err != nil {
		return fmt.Errorf("migrate: DATABASE_URL is not a PostgreSQL URL")
	}
	cfg.RuntimeParams["role"] = RoleOwner
	db := stdlib.OpenDB(*cfg)
	defer func() { _ = db.Close() }() // nothing is pending on it
	for _, set := range sets {
		if err := migrateSet(ctx, db, set); err != nil {
			return fmt.Errorf("migrate %s: %w", set.Name, err)
		}
	}
	return nil
}

func migrateSet(ctx context.Context, db *sql.DB, set MigrationSet) error {
	locker, err := lock.NewPostgresSessionLocker()
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectPostgres, db, set.FS,
		goose.WithTableName("goose_"+set.Name), goose.WithSessionLocker(locker), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return err
	}
	current, err := p.GetDBVersion(ctx)
	if err != nil {
		return err
	}
	sources := p.ListSources()
	if newest := sources[len(sources)-1].Version; current > newest {
		return fmt.Errorf("the database is at version %d, this program knows %d: run a newer program", current, newest)
	}
	_, err = p.Up(ctx)
	return err
}

// prepare makes what migrations stand on: roles, the extension, and a schema
// that the owner role owns.
func prepare(ctx context.Context, adminURL string) error {
	conn, err := pgx.Connect(ctx, adminURL)
	if err != nil {
		return unreachable(adminURL, err)
	}
	defer func() { _ = conn.Close(ctx) }() // nothing is pending on it
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", rolesLock); err != nil {
			return fmt.Errorf("prepare the database: %w", err)
		}
		for _, stmt := range []string{
			createRole(RoleOwner), createRole(RoleAPI), createRole(RoleWorker),
			"GRANT " + RoleOwner + ", " + RoleAPI + ", " + RoleWorker + " TO CURRENT_USER",
			"CREATE EXTENSION IF NOT EXISTS pg_trgm",
			"ALTER SCHEMA public OWNER TO " + RoleOwner,
			"GRANT USAGE ON SCHEMA public TO " + RoleAPI + ", " + RoleWorker,
			"DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO " + RoleOwner + "', current_database()); END $$",
		} {
			if _, err := tx.Exec(ctx, stmt); err != nil {
				return fmt.Errorf("prepare the database: %w", err)
			}
		}
		return nil
	})
}

func createRole(name string) string {
	return "DO $$ BEGIN CREATE ROLE " + name + " NOLOGIN NOBYPASSRLS; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
}

// EnsureDatabase creates the database of rawURL if the server lacks it. It
// connects to the database "postgres" of the same server to look.
func EnsureDatabase(ctx context.Context, rawURL string) error {
	u, err := url.Parse(rawURL)
	if err != nil || u.Path == "" || u.Path == "/" {
		return errors.New("DATABASE_URL must name a database (postgres://user:password@host:port/database)")
	}
	name := u.Path[1:]
	u.Path = "/postgres"
	conn, err := pgx.Connect(ctx, u.String())
	if err != nil {
		return unreachable(rawURL, err)
	}
	defer func() { _ = conn.Close(ctx) }() // nothing is pending on it
	var exists bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", name).Scan(&exists); err != nil {
		return fmt.Errorf("look for database %s: %w", name, err)
	}
	if exists {
		return nil
	}
	_, err = conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize())
	if err != nil && !violates(err, "42P04", "") && !violates(err, "23505", "") {
		return fmt.Errorf("create database %s: %w", name, err)
	}
	return nil
}
