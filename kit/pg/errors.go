package pg

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
)

// NoRows returns notFound where err says that no row was found, and err as it
// is otherwise.
func NoRows(err, notFound error) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return notFound
	}
	return err
}

// IsUnique reports whether err is the violation of the named unique constraint
// or index; an empty name means any.
func IsUnique(err error, constraint string) bool { return violates(err, "23505", constraint) }

// IsForeignKey reports whether err is the violation of the named foreign key;
// an empty name means any.
func IsForeignKey(err error, constraint string) bool { return violates(err, "23503", constraint) }

func violates(err error, code, constraint string) bool {
	var e *pgconn.PgError
	if !errors.As(err, &e) || e.Code != code {
		return false
	}
	return constraint == "" || e.ConstraintName == constraint
}

// translate makes UNAVAILABLE of a server that cannot be reached or went away,
// also in the middle of a commit, whose outcome the caller then learns by
// repeating the call with its idempotency key; and VALIDATION_FAILED of text that
// cannot be stored. Other errors stay as they are.
func translate(ctx context.Context, err error) error {
	var own *apierr.Error
	switch {
	case err == nil || ctx.Err() != nil || errors.As(err, &own):
		return err
	case gone(err):
		return apierr.New(errorv1.Reason_REASON_UNAVAILABLE, "the database cannot be reached").WithRetryAfter(time.Second).Wrap(err)
	case zeroByte(err):
		return apierr.New(errorv1.Reason_REASON_VALIDATION_FAILED, "text must not hold zero bytes").Wrap(err)
	}
	return err
}

// zeroByte reports whether err says that a text, or a jsonb document, holds a zero
// byte, which is the one character that PostgreSQL cannot store.
func zeroByte(err error) bool {
	var server *pgconn.PgError
	return errors.As(err, &server) && (server.Code == "22021" || server.Code == "22P05")
}

// gone reports whether err says that there is no server at the other end.
func gone(err error) bool {
	var server *pgconn.PgError
	if errors.As(err, &server) {
		// Connection exceptions, and: shut down, crashed, starting, too many clients.
		return strings.HasPrefix(server.Code, "08") || slices.Contains([]string{"57P01", "57P02", "57P03", "53300"}, server.Code)
	}
	var connect *pgconn.ConnectError
	var network *net.OpError
	return errors.As(err, &connect) || errors.As(err, &network) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, pgconn.ErrConnClosed)
}
