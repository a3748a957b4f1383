package stores

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"time"
)

// clientFiles are what a client of a store may have to show and to check. All are optional.
type clientFiles struct {
	// ca is the servers' authority; empty: the system's.
	ca string
	// cert is our own; its key is in the same file if key is empty.
	cert, key string
	// password of an encrypted key.
	password string
}

// clientTLS refuses files that can't be used. The client's own certificate is read again for
// each connection, so that a renewed one is used without a restart.
func clientTLS(f clientFiles) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if f.ca != "" {
		b, err := os.ReadFile(f.ca)
		if err != nil {
			return nil, fmt.Errorf("tls authority: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(b) {
			return nil, fmt.Errorf("tls authority %s: no certificate in it", f.ca)
		}
	}
	if f.cert == "" {
		return cfg, nil
	}
	if _, err := f.certificate(); err != nil {
		return nil, err
	}
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return f.valid(time.Now()) }
	return cfg, nil
}

// valid is the certificate, unless it has ended. The server would say so too, in a word that
// gets lost more often than not, because it hangs up at the same time.
func (f clientFiles) valid(now time.Time) (*tls.Certificate, error) {
	pair, err := f.certificate()
	if err == nil && pair.Leaf != nil && now.After(pair.Leaf.NotAfter) {
		return nil, fmt.Errorf("tls certificate %s expired at %s: renew it", f.cert, pair.Leaf.NotAfter.Format(time.RFC3339))
	}
	return pair, err
}

func (f clientFiles) certificate() (*tls.Certificate, error) {
	cert, err := os.ReadFile(f.cert)
	if err != nil {
		return nil, fmt.Errorf("tls certificate: %w", err)
	}
	key := cert
	if f.key != "" {
		if key, err = os.ReadFile(f.key); err != nil {
			return nil, fmt.Errorf("tls key: %w", err)
		}
	}
	if key, err = plainKey(key, f.password); err != nil {
		return nil, fmt.Errorf("tls key of %s: %w", f.cert, err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("tls certificate %s: %w", f.cert, err)
	}
	return &pair, nil
}

var errKeyPassword = errors.New("the key is encrypted: give its password (key_password)")

// plainKey decrypts the first private key of a PEM file, in either of openssl's forms.
func plainKey(file []byte, password string) ([]byte, error) {
	for rest := file; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return file, nil // whoever uses it will say that there is none
		}
		switch {
		case block.Type == "ENCRYPTED PRIVATE KEY":
			if password == "" {
				return nil, errKeyPassword
			}
			der, err := decryptPKCS8(block.Bytes, password)
			if err != nil {
				return nil, err
			}
			return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
		case block.Headers["DEK-Info"] != "":
			if password == "" {
				return nil, errKeyPassword
			}
			//lint:ignore SA1019 weak, and still what `openssl rsa -aes256 -traditional` writes
			der, err := x509.DecryptPEMBlock(block, []byte(password))
			if err != nil {
				return nil, fmt.Errorf("decrypt: %w", err)
			}
			return pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: der}), nil
		}
	}
}
