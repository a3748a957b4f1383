package etcd3

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net/url"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
)

// endpoint is one server of etcd, with one connection of its own, so that its silence is
// nobody else's (safety rule S7).
type endpoint struct {
	url  string
	conn *grpc.ClientConn

	// goodAt and badAt are when it last answered and failed; guarded by the pool.
	goodAt, badAt events.Instant

	// authenticating is held while a token is fetched.
	authenticating chan struct{}
	mu             sync.Mutex // guards the two below
	token          string
	// tokenFor is the login that the token is for; nil: ask for one.
	tokenFor *login
}

// login is what etcd wants to know of us.
type login struct{ username, password string }

// The times of a connection. gRPC probes one that says nothing no more often than every 10 s;
// silence is noticed much earlier, by calls that go elsewhere.
const (
	redialMin    = 30 * time.Millisecond
	redialMax    = 500 * time.Millisecond
	handshakeMax = 3 * time.Second
	probeEvery   = 10 * time.Second
	probeMax     = 3 * time.Second
)

func newEndpoint(raw string, secured *tls.Config) (*endpoint, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("endpoint: %w", err)
	}
	creds := insecure.NewCredentials()
	if u.Scheme == "https" {
		if secured == nil {
			secured = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		creds = credentials.NewTLS(secured)
	}
	conn, err := grpc.NewClient("passthrough:///"+u.Host,
		grpc.WithTransportCredentials(creds),
		grpc.WithStatsHandler(wireTap{}),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
		grpc.WithNoProxy(),
		grpc.WithIdleTimeout(0),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: redialMin, Multiplier: 1.6, Jitter: 0.2, MaxDelay: redialMax},
			MinConnectTimeout: handshakeMax,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: probeEvery, Timeout: probeMax}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)),
	)
	if err != nil {
		return nil, fmt.Errorf("endpoint %s: %w", raw, err)
	}
	return &endpoint{url: raw, conn: conn, authenticating: make(chan struct{}, 1)}, nil
}

// prepared returns the context of a request: with the token, and the wish that a server
// without leader says so at once instead of keeping the request.
func (e *endpoint) prepared(ctx context.Context, who *login) (context.Context, error) {
	token, err := e.tokenOf(ctx, who)
	if err != nil {
		return nil, err
	}
	pairs := []string{rpctypes.MetadataRequireLeaderKey, rpctypes.MetadataHasLeader}
	if token != "" {
		pairs = append(pairs, rpctypes.TokenFieldNameGRPC, token)
	}
	return metadata.NewOutgoingContext(ctx, metadata.Pairs(pairs...)), nil
}

// tokenOf logs in unless that was done. Nothing of a request has been sent when it fails.
func (e *endpoint) tokenOf(ctx context.Context, who *login) (string, error) {
	if who == nil {
		return "", nil
	}
	select {
	case e.authenticating <- struct{}{}:
		defer func() { <-e.authenticating }()
	case <-ctx.Done():
		return "", fmt.Errorf("log in: %w: %w", dcs.ErrUnavailable, ctx.Err())
	}
	e.mu.Lock()
	token, known := e.token, e.tokenFor == who
	e.mu.Unlock()
	if known {
		return token, nil
	}
	r, err := pb.NewAuthClient(e.conn).Authenticate(ctx, &pb.AuthenticateRequest{Name: who.username, Password: who.password})
	switch {
	case anyOf(err, rpctypes.ErrAuthNotEnabled):
		token = "" // it doesn't want to know
	case anyOf(err, rpctypes.ErrAuthFailed):
		return "", fmt.Errorf("log in to etcd as %s: %w: %w", who.username, dcs.ErrBroken, err)
	case err != nil:
		return "", fmt.Errorf("log in to etcd: %w: %w", dcs.ErrUnavailable, err)
	default:
		token = r.Token
	}
	e.mu.Lock()
	e.token, e.tokenFor = token, who
	e.mu.Unlock()
	return token, nil
}

// forgetToken makes the next request log in anew.
func (e *endpoint) forgetToken() {
	e.mu.Lock()
	e.tokenFor = nil
	e.mu.Unlock()
}

// keepAliveOnce renews a lease by one message, and not again. A TTL of zero says that the
// server knows no such lease.
func (e *endpoint) keepAliveOnce(ctx context.Context, id int64) (*pb.LeaseKeepAliveResponse, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := pb.NewLeaseClient(e.conn).LeaseKeepAlive(ctx)
	if err != nil {
		return nil, err
	}
	if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: id}); err != nil {
		if _, why := stream.Recv(); why != nil {
			err = why // Send only says that the stream is over
		}
		return nil, err
	}
	r, err := stream.Recv()
	if anyOf(err, rpctypes.ErrLeaseNotFound) {
		return nil, fmt.Errorf("%w: without a term, it proves nothing: %w", dcs.ErrUnknown, err)
	}
	if err == nil && r.GetHeader() == nil {
		return nil, errors.New("an answer without header")
	}
	return r, err
}
