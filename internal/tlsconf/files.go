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

// FromFiles returns the configuration of a node for both ends of a connection. All three
// files are read again for every connection, so that renewed ones are used without a
// restart, and a mistake in them shows in the error of the next connection. To change
// the authority, put both into CA until every node's certificate is from the new one.
func FromFiles(f Files) (*tls.Config, error) {
	if _, err := f.roots(); err != nil {
		return nil, err
	}
	if _, err := f.certificate(); err != nil {
		return nil, err
	}
	cfg := base()
	cfg.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return f.certificate() }
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return f.certificate() }
	cfg.VerifyConnection = func(state tls.ConnectionState) error {
		roots, err := f.roots()
		if err != nil {
			return err
		}
		return verify(state, roots, time.Now(), ErrUntrusted)
	}
	return cfg, nil
}

func (f Files) roots() (*x509.CertPool, error) {
	pem, err := os.ReadFile(f.CA)
	if err != nil {
		return nil, fmt.Errorf("tls authority: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("tls authority %s: no certificate in it", f.CA)
	}
	return roots, nil
}

func (f Files) certificate() (*tls.Certificate, error) {
	cert, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return nil, fmt.Errorf("tls certificate: %w", err)
	}
	return &cert, nil
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
