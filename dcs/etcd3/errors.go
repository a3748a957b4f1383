package etcd3

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/stats"

	"github.com/pgregent/regent/dcs"
)

// wire remembers of one request whether any of it was handed to a connection. Until
// then it can't have happened, whatever went wrong.
type wire struct{ sent atomic.Bool }

type wireKey struct{}

func withWire(ctx context.Context) (context.Context, *wire) {
	w := &wire{}
	return context.WithValue(ctx, wireKey{}, w), w
}

// wireTap marks wires. It implements stats.Handler.
type wireTap struct{}

func (wireTap) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (wireTap) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (wireTap) HandleConn(context.Context, stats.ConnStats)                       {}

func (wireTap) HandleRPC(ctx context.Context, s stats.RPCStats) {
	switch s.(type) {
	case *stats.OutHeader, *stats.OutPayload:
		if w, ok := ctx.Value(wireKey{}).(*wire); ok {
			w.sent.Store(true)
		}
	}
}

// anyOf reports whether etcd's answer is one of these. It must be given the error as gRPC
// returned it, because the answer is known by its words.
func anyOf(err error, kinds ...error) bool {
	answer := rpctypes.Error(err)
	for _, k := range kinds {
		if errors.Is(answer, k) {
			return true
		}
	}
	return false
}

// tokenRefused: the server doesn't know our token, or it is from before a change of
// users and roles. It judges so before it changes anything.
func tokenRefused(err error) bool {
	return anyOf(err, rpctypes.ErrInvalidAuthToken, rpctypes.ErrAuthOldRevision, rpctypes.ErrUserEmpty)
}

// unsent is the error of a request that reached no server.
type unsent struct{ error }

func (u unsent) Unwrap() error { return u.error }

// classify wraps what a request ended with in one of the four classes.
func classify(err error, sent bool) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, dcs.ErrRefused), errors.Is(err, dcs.ErrUnavailable), errors.Is(err, dcs.ErrBroken), errors.Is(err, dcs.ErrUnknown):
		return err
	case !sent:
		return fmt.Errorf("%w: %w", dcs.ErrUnavailable, unsent{err})
	case anyOf(err, rpctypes.ErrLeaseNotFound, rpctypes.ErrLeaseExist):
		return fmt.Errorf("%w: %w", dcs.ErrRefused, err)
	// Said before anything was proposed. A server that stops, times out or lost its leader
	// on the way says nothing about what it had proposed.
	case anyOf(err, rpctypes.ErrNoLeader, rpctypes.ErrTooManyRequests, rpctypes.Error(rpctypes.ErrGRPCNotSupportedForLearner)),
		tokenRefused(err):
		return fmt.Errorf("%w: %w", dcs.ErrUnavailable, err)
	case anyOf(err, rpctypes.ErrPermissionDenied, rpctypes.ErrAuthFailed, rpctypes.ErrNoSpace, rpctypes.ErrCorrupt,
		rpctypes.ErrRequestTooLarge, rpctypes.ErrLeaseTTLTooLarge, rpctypes.ErrTooManyOps):
		return fmt.Errorf("%w: %w", dcs.ErrBroken, err)
	default:
		return fmt.Errorf("%w: %w", dcs.ErrUnknown, err)
	}
}

// asRead is the error of something that changes nothing, whose outcome can't matter.
func asRead(err error) error {
	if errors.Is(err, dcs.ErrUnknown) {
		return fmt.Errorf("%w: %s", dcs.ErrUnavailable, strings.ReplaceAll(err.Error(), dcs.ErrUnknown.Error()+": ", ""))
	}
	return err
}
