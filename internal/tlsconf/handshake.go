package tlsconf

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
)

// Client runs the handshake on conn as its dialling end, within ctx. Its errors
// wrap ErrSecretDiffers or ErrPlain where that is the cause. On an error the
// connection is left to the caller to close.
func Client(ctx context.Context, conn net.Conn, cfg *tls.Config) (*tls.Conn, error) {
	return handshake(ctx, tls.Client(conn, cfg))
}

// Server is Client for the accepting end.
func Server(ctx context.Context, conn net.Conn, cfg *tls.Config) (*tls.Conn, error) {
	return handshake(ctx, tls.Server(conn, cfg))
}

func handshake(ctx context.Context, conn *tls.Conn) (*tls.Conn, error) {
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("tls handshake: %w", Explain(err))
	}
	return conn, nil
}

// Explain adds ErrSecretDiffers or ErrPlain to a handshake's or first read's error
// where that is what it means. In TLS 1.3 a client learns only at its first read
// that the server didn't accept its certificate.
func Explain(err error) error {
	if err == nil || errors.Is(err, ErrSecretDiffers) || errors.Is(err, ErrUntrusted) {
		return err
	}
	if header := (tls.RecordHeaderError{}); errors.As(err, &header) {
		return fmt.Errorf("%w: %w", ErrPlain, err)
	}
	// The package gives alerts of the peer no type outside of QUIC.
	if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op == "remote error" &&
		strings.Contains(op.Err.Error(), "bad certificate") {
		return fmt.Errorf("%w: the peer refused our certificate: %w", ErrSecretDiffers, err)
	}
	return err
}

// Peer is the node name in the peer's certificate; empty without one.
func Peer(conn net.Conn) string {
	tc, ok := conn.(*tls.Conn)
	if !ok {
		return ""
	}
	certs := tc.ConnectionState().PeerCertificates
	if len(certs) == 0 {
		return ""
	}
	return certs[0].Subject.CommonName
}

// FirstByteIsTLS reports whether the first byte of a connection is the beginning of
// a TLS handshake, so that a listener can tell the two kinds of peers apart.
func FirstByteIsTLS(b byte) bool { return b == 0x16 }
