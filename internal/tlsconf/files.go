package tlsconf

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"
)

// Files name a node's certificate, its key and the authority that issued every
// node's certificate, all in PEM.
type Files struct {
	Cert, Key, CA string
}

// FromFiles returns the configuration of a node for both ends of a connection. The
// node's certificate is read again for every connection, so that a renewed one is
// used without a restart; the authority is read once.
func FromFiles(f Files) (*tls.Config, error) {
	pem, err := os.ReadFile(f.CA)
	if err != nil {
		return nil, fmt.Errorf("tls authority: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("tls authority %s: no certificate in it", f.CA)
	}
	load := func() (*tls.Certificate, error) {
		cert, err := tls.LoadX509KeyPair(f.Cert, f.Key)
		if err != nil {
			return nil, fmt.Errorf("tls certificate: %w", err)
		}
		return &cert, nil
	}
	if _, err := load(); err != nil {
		return nil, err
	}
	cfg := base()
	cfg.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return load() }
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	cfg.VerifyConnection = func(state tls.ConnectionState) error {
		return verify(state, roots, time.Now(), ErrUntrusted)
	}
	return cfg, nil
}

// What goes wrong between two ends, in words for an operator.
var (
	// ErrSecretDiffers: the peer's certificate wasn't derived from our secret, or
	// the peer says so of ours.
	ErrSecretDiffers = errors.New("the cluster secret differs")
	// ErrUntrusted: the peer's certificate isn't one of our authority's.
	ErrUntrusted = errors.New("the peer's certificate isn't from the configured authority")
	// ErrPlain: this end speaks TLS and the peer doesn't.
	ErrPlain = errors.New("the peer speaks plain text, this node TLS: give both the same cluster secret")
)
