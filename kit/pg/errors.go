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

// translate makes UNAVAILABLE of what is the server's or our own doing: it cannot be
// reached, went away or cannot work now (unavailable), or did not answer within our limit.
// In the middle of a commit the caller then learns the outcome by repeating the call with
// its idempotency key. Text that cannot be stored is VALIDATION_FAILED. Where the caller's
// own context has ended, err stays as it is, and so do other errors.
func translate(ctx context.Context, err error) error {
	var own *apierr.Error
	if err == nil || ctx.Err() != nil || errors.As(err, &own) {
		return err
	}
	if gone(err) {
		return unavailable("the database cannot be reached", time.Second, err)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return unavailable("the database did not answer in time", time.Second, err)
	}
	if zeroByte(err) {
		return apierr.New(errorv1.Reason_REASON_VALIDATION_FAILED, "text must not hold zero bytes").Wrap(err)
	}
	if why, wait, ok := cannotNow(code(err)); ok {
		return unavailable(why, wait, err)
	}
	return err
}

func unavailable(why string, wait time.Duration, cause error) error {
	return apierr.New(errorv1.Reason_REASON_UNAVAILABLE, "%s", why).WithRetryAfter(wait).Wrap(cause)
}

// code is the SQLSTATE of a server's error; empty for other errors.
func code(err error) string {
	var server *pgconn.PgError
	if !errors.As(err, &server) {
		return ""
	}
	return server.Code
}

// zeroByte reports whether err says that a text, or a jsonb document, holds a zero
// byte, which is the one character that PostgreSQL cannot store.
func zeroByte(err error) bool { return slices.Contains([]string{"22021", "22P05"}, code(err)) }

// gone reports whether err says that there is no server at the other end, or that it has
// ended the connection.
func gone(err error) bool {
	if c := code(err); c != "" {
		// Connection exceptions; shut down, crashed, starting, dropped, idle for too long;
		// idle in a transaction, a transaction for too long.
		return strings.HasPrefix(c, "08") || strings.HasPrefix(c, "57P") || c == "25P03" || c == "25P04"
	}
	var connect *pgconn.ConnectError
	var network *net.OpError
	return errors.As(err, &connect) || errors.As(err, &network) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, pgconn.ErrConnClosed)
}

// How soon it is worth trying again: soon where others are in the way, later where somebody
// has to help.
const (
	retrySoon  = time.Second
	retryLater = 30 * time.Second
)

// cannotNow says why a server that answers cannot do now what was asked, by its SQLSTATE
// (PostgreSQL, appendix A), and when to try again. None of these is the caller's fault,
// whose statements are the product's own: also a statement that the server gave up after
// our limit (57014), or that waited too long for a lock (55P03), was right and only late.
func cannotNow(code string) (why string, wait time.Duration, ok bool) {
	switch {
	case code == "53300": // too_many_connections
		return "the database has no connection free", retrySoon, true
	case strings.HasPrefix(code, "53"): // disk full, out of memory, a limit of its configuration
		return "the database is short of resources", retryLater, true
	case strings.HasPrefix(code, "58"): // an error of its system or files
		return "the database has an error of its system", retryLater, true
	case readOnly(code):
		return "the database is read-only", retrySoon, true
	case code == "55P03": // lock_not_available
		return "the rows are in use", retrySoon, true
	case code == "57014": // query_canceled
		return "the database did not answer in time", retrySoon, true
	case strings.HasPrefix(code, "57"):
		return "the database was interrupted", retrySoon, true
	case slices.Contains([]string{"40001", "40003", "40P01"}, code): // a rival was first
		return "a rival transaction was in the way", retrySoon, true
	}
	return "", 0, false
}

// readOnly reports whether the code says that the server takes no changes: it is, or has
// become, a standby.
func readOnly(code string) bool { return code == "25006" }
