package ctl

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"time"

	"github.com/pgregent/regent/internal/config"
)

// ErrUnreachable: the request never left, so nothing has happened.
var ErrUnreachable = errors.New("member unreachable")

// The bounds of a call. A member's answer to a switchover takes as long as the
// switchover does; callers bound that by their context.
const (
	connectTimeout = 5 * time.Second
	maxReply       = 1 << 20 // bytes
)

// restCaller calls members over HTTP or HTTPS.
type restCaller struct {
	client *http.Client
	auth   config.BasicAuth
}

// NewCaller prepares calls with the settings of the ctl section: user and password,
// authority, client certificate.
func NewCaller(c config.Ctl) (Caller, error) {
	secure, err := tlsConfig(c)
	if err != nil {
		return nil, err
	}
	return &restCaller{
		auth: c.Auth,
		client: &http.Client{
			Transport: &http.Transport{
				TLSClientConfig:     secure,
				DialContext:         (&net.Dialer{Timeout: connectTimeout}).DialContext,
				TLSHandshakeTimeout: connectTimeout,
				DisableKeepAlives:   true, // members close after each reply
			},
			// A member doesn't redirect; whoever answers with one isn't a member.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

func tlsConfig(c config.Ctl) (*tls.Config, error) {
	out := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: c.Insecure} //nolint:gosec // asked for by -k or ctl.insecure
	if c.CACert != "" {
		pem, err := os.ReadFile(c.CACert)
		if err != nil {
			return nil, fmt.Errorf("read ctl.cacert: %w", err)
		}
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read ctl.cacert %s: no certificate in it", c.CACert)
		}
	}
	if c.CertFile != "" {
		if c.KeyFilePassword.Reveal() != "" {
			return nil, errors.New("ctl.keyfile_password: encrypted keys can't be read yet; give a key without a password")
		}
		key := c.KeyFile
		if key == "" {
			key = c.CertFile
		}
		pair, err := tls.LoadX509KeyPair(c.CertFile, key)
		if err != nil {
			return nil, fmt.Errorf("read ctl.certfile: %w", err)
		}
		out.Certificates = []tls.Certificate{pair}
	}
	return out, nil
}

// Call implements Caller.
func (r *restCaller) Call(ctx context.Context, method, target string, body []byte) (int, []byte, error) {
	connected := false
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { connected = true },
	})
	req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return 0, nil, fmt.Errorf("call %s: %w: %w", target, ErrUnreachable, err)
	}
	if len(body) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	if r.auth.Username != "" {
		req.SetBasicAuth(r.auth.Username, r.auth.Password.Reveal())
	}
	resp, err := r.client.Do(req)
	switch {
	case err != nil && !connected:
		return 0, nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	case err != nil:
		return 0, nil, err
	}
	defer resp.Body.Close()
	reply, err := io.ReadAll(io.LimitReader(resp.Body, maxReply))
	if err != nil {
		return 0, nil, fmt.Errorf("read the reply of %s: %w", target, err)
	}
	return resp.StatusCode, reply, nil
}

// endpoint is an address of a member's REST API, made from the one that it publishes.
func endpoint(apiURL, path string) (string, error) {
	u, err := url.Parse(apiURL)
	if err != nil || u.Host == "" {
		return "", fmt.Errorf("%w: the member publishes no address of its REST API", ErrUnreachable)
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: "/" + path}).String(), nil
}
