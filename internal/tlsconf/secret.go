package tlsconf

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// FromSecret returns the configuration of a node for both ends of a connection:
// mutual TLS 1.3 among everyone who knows the secret. Host names are not checked,
// the peer's node name is in its certificate (see Peer).
//
// Peers that know one of the accepted secrets instead are let in as well. That is how a
// secret is changed without a moment in which nodes refuse each other: first every node
// accepts the new one, then every node uses it and accepts the old one, then nobody does.
func FromSecret(secret, node string, accepted ...string) (*tls.Config, error) {
	if secret == "" || node == "" {
		return nil, errors.New("tls from the cluster secret: the secret and the node's name must not be empty")
	}
	caKey, ca, err := authority(secret)
	if err != nil {
		return nil, fmt.Errorf("tls from the cluster secret: %w", err)
	}
	cert, err := issue(node, caKey, ca)
	if err != nil {
		return nil, fmt.Errorf("tls from the cluster secret: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	for _, other := range accepted {
		_, ca, err := authority(other)
		if err != nil {
			return nil, fmt.Errorf("tls from an accepted secret: %w", err)
		}
		roots.AddCert(ca)
	}
	cfg := base()
	cfg.Certificates = []tls.Certificate{cert}
	cfg.VerifyConnection = func(state tls.ConnectionState) error {
		return verify(state, roots, validAt, ErrSecretDiffers)
	}
	return cfg, nil
}

func base() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		ClientAuth: tls.RequireAnyClientCert,
		// Peers are known by a certificate of the cluster's authority, not by host
		// names; VerifyConnection checks the chain on both ends, every time.
		InsecureSkipVerify:     true,
		SessionTicketsDisabled: true,
	}
}

// The certificates' validity, and the time at which it is checked. Fixed, so that
// no wall clock decides who may join.
var (
	validFrom  = time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC)
	validAt    = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	validUntil = time.Date(2500, 1, 1, 0, 0, 0, 0, time.UTC)
)

// authority derives the same key and certificate on every node: Ed25519 signatures
// and the template are deterministic.
func authority(secret string) (ed25519.PrivateKey, *x509.Certificate, error) {
	seed, err := hkdf.Key(sha256.New, []byte(secret), []byte("regent cluster secret"), "certificate authority 1", ed25519.SeedSize)
	if err != nil {
		return nil, nil, fmt.Errorf("derive the authority's key: %w", err)
	}
	key := ed25519.NewKeyFromSeed(seed)
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "regent cluster"},
		NotBefore:             validFrom,
		NotAfter:              validUntil,
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, fmt.Errorf("make the authority's certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, fmt.Errorf("read the authority's certificate: %w", err)
	}
	return key, cert, nil
}

func issue(node string, caKey ed25519.PrivateKey, ca *x509.Certificate) (tls.Certificate, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make the node's key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make a serial number: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: node},
		NotBefore:    validFrom,
		NotAfter:     validUntil,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca, public, caKey)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make the certificate of node %s: %w", node, err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}, nil
}

// verify checks the peer's chain; anything wrong with it is mismatch.
func verify(state tls.ConnectionState, roots *x509.CertPool, at time.Time, mismatch error) error {
	if len(state.PeerCertificates) == 0 {
		return fmt.Errorf("%w: the peer showed no certificate", mismatch)
	}
	between := x509.NewCertPool()
	for _, cert := range state.PeerCertificates[1:] {
		between.AddCert(cert)
	}
	_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: at,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return fmt.Errorf("%w: %w", mismatch, err)
	}
	return nil
}
