package pgmgr

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/pgmgr/keeper"
)

// The classes of this package's errors; every error of a verb is one of them.
var (
	// ErrRefused: it can't be done now, nothing changed, and trying again without
	// a change of circumstances is useless.
	ErrRefused = errors.New("refused")
	// ErrUnavailable: it didn't take effect and may be tried again.
	ErrUnavailable = errors.New("unavailable")
	// ErrUnknown: it may have taken effect, or may still; observe first.
	ErrUnknown = errors.New("outcome unknown")
	// ErrBroken: an operator is needed (wrong cluster, unusable configuration,
	// missing program).
	ErrBroken = errors.New("broken")
)

// ClassOf maps a verb's error to the class of its outcome. Broken is refused to
// the machine, which can't repair it either; the text says what is broken. An
// error of no class counts as unknown, the careful choice.
func ClassOf(err error) events.Class {
	switch {
	case err == nil:
		return events.Done
	case errors.Is(err, ErrRefused), errors.Is(err, ErrBroken):
		return events.Refused
	case errors.Is(err, ErrUnavailable):
		return events.Unavailable
	default:
		return events.Unknown
	}
}

// classed wraps err with what was tried and the class of the failure.
func classed(class error, op string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, class) {
		return fmt.Errorf("%s: %w", op, err)
	}
	return fmt.Errorf("%s: %w: %w", op, class, err)
}

// hasClass reports whether some layer below already named a class.
func hasClass(err error) bool {
	return errors.Is(err, ErrRefused) || errors.Is(err, ErrUnavailable) ||
		errors.Is(err, ErrUnknown) || errors.Is(err, ErrBroken)
}

// orClassed keeps the class that err carries, and gives it class if it has none.
func orClassed(class error, op string, err error) error {
	if err != nil && hasClass(err) {
		return fmt.Errorf("%s: %w", op, err)
	}
	return classed(class, op, err)
}

// fromKeeper translates an error of the keeper's client.
func fromKeeper(op string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, keeper.ErrRefused):
		return classed(ErrRefused, op, err)
	case errors.Is(err, keeper.ErrUnavailable):
		return classed(ErrUnavailable, op, err)
	default:
		return classed(ErrUnknown, op, err)
	}
}

// SQLSTATE codes that say what is the matter with a server that answers.
const (
	codeCannotConnectNow   = "57P03"
	codeTooManyConnections = "53300"
	codeInvalidPassword    = "28P01"
	codeInvalidAuth        = "28000"
	codeDuplicateObject    = "42710"
	codeUndefinedObject    = "42704"
	codeObjectInUse        = "55006"
	codeUndefinedFile      = "58P01"
	codeAdminShutdown      = "57P01"
	codeCrashShutdown      = "57P02"
)

// sqlCode is the SQLSTATE of a server's answer, "" if it isn't one.
func sqlCode(err error) string {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return pe.Code
	}
	return ""
}

// whyNotReady turns a failed local connection or query into the words of
// events.PostgresState.Why.
func whyNotReady(err error) string {
	var pe *pgconn.PgError
	switch {
	case errors.As(err, &pe) && pe.Code == codeCannotConnectNow:
		return strings.TrimPrefix(pe.Message, "the database system is ")
	case errors.As(err, &pe) && pe.Code == codeTooManyConnections:
		return "out of connections: " + pe.Message
	case errors.As(err, &pe) && (pe.Code == codeInvalidPassword || pe.Code == codeInvalidAuth):
		return "the superuser's connection is refused: " + pe.Message
	case errors.As(err, &pe):
		return "the monitoring query failed: " + pe.Message + " (" + pe.Code + ")"
	case errors.Is(err, context.DeadlineExceeded), pgconn.Timeout(err):
		return "hung: no answer in time"
	case isConnRefused(err):
		return "not listening"
	default:
		return "no connection: " + err.Error()
	}
}
