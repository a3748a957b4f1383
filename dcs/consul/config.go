package consul

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/internal/mono"
)

// Config says where Consul is and which cluster is meant. Its fields follow the settings of
// Patroni's section consul; zero values are their defaults.
type Config struct {
	// Host is "host" or "host:port" of a Consul agent; 127.0.0.1 when empty.
	Host string
	// Port counts when Host has none; 8500 when zero.
	Port int
	// URL replaces Host, Port and Scheme when it is set.
	URL string
	// Scheme is http, the default, or https.
	Scheme string
	// Token of the access control list; the environment's CONSUL_HTTP_TOKEN when empty.
	Token string
	// NoVerify accepts any certificate of the server (verify: false).
	NoVerify bool
	// CACert names a file with the authorities to trust instead of the system's.
	CACert string
	// Cert and Key name the client's certificate. Key may be in Cert.
	Cert, Key string
	// DC is the datacenter whose servers keep the cluster's state; the agent's own when empty.
	DC string
	// Consistency of local views and watches: default, consistent or stale. The first two
	// mean the same here: what a leader says without asking the others can't be told from
	// what a thawed one says (safety rule S24). Stale views have an unknown age.
	Consistency string
	// Checks are the checks of the agent's node that end its sessions when they fail. None,
	// the default, leaves it to the ttl.
	Checks []string
	// Register announces the member as a service.
	Register Service

	// Base is the cluster's base path, as dcs.BasePath makes it.
	Base string
	// Scope and Name are the cluster's and the member's, by which people find its sessions
	// and its service.
	Scope string
	Name  events.NodeName
	// Timeout bounds each request that its context leaves more time; 10 s when zero.
	Timeout time.Duration
	// Log takes what no caller sees; nothing is logged when it is nil.
	Log *slog.Logger
	// Now reads the clock; mono.Now when nil.
	Now func() events.Instant
}

const (
	defaultHost    = "127.0.0.1"
	defaultPort    = 8500
	defaultTimeout = 10 * time.Second
)

var errSettings = errors.New("unusable settings")

func unusable(format string, args ...any) error {
	return fmt.Errorf("consul: %w: %w: %w", dcs.ErrBroken, errSettings, fmt.Errorf(format, args...))
}

func (c Config) withDefaults() (Config, error) {
	if strings.Trim(c.Base, "/") == "" {
		return c, unusable("no base path")
	}
	switch c.Consistency {
	case "":
		c.Consistency = "default"
	case "default", "consistent", "stale":
	default:
		return c, unusable("consistency %q is none of default, consistent, stale", c.Consistency)
	}
	if c.Timeout <= 0 {
		c.Timeout = defaultTimeout
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = mono.Now
	}
	if err := c.Register.validate(); err != nil {
		return c, err
	}
	return c, nil
}

// base is the prefix of the cluster's keys, which has no leading slash in Consul.
func (c Config) base() string { return strings.Trim(c.Base, "/") + "/" }

// endpoint returns scheme and host:port of the agent.
func (c Config) endpoint() (scheme, address string, err error) {
	scheme, host, port := c.Scheme, c.Host, c.Port
	if c.URL != "" {
		u, err := url.Parse(c.URL)
		if err != nil || u.Host == "" {
			return "", "", unusable("url %q isn't of the form http://host:port", c.URL)
		}
		if strings.Trim(u.Path, "/") != "" {
			return "", "", unusable("url %q: paths aren't supported", c.URL)
		}
		scheme, host, port = u.Scheme, u.Host, 0
	}
	switch scheme {
	case "":
		scheme = "http"
	case "http", "https":
	default:
		return "", "", unusable("scheme %q is neither http nor https", scheme)
	}
	if host == "" {
		host = defaultHost
	}
	if h, p, err := net.SplitHostPort(host); err == nil {
		if host = h; p != "" {
			if port, err = strconv.Atoi(p); err != nil {
				return "", "", unusable("host %q: %w", c.Host, err)
			}
		}
	}
	if port == 0 {
		port = defaultPort
	}
	if port < 0 || port > 65535 {
		return "", "", unusable("port %d", port)
	}
	return scheme, net.JoinHostPort(strings.Trim(host, "[]"), strconv.Itoa(port)), nil
}

// tls returns how to speak to an https endpoint.
func (c Config) tls() (*tls.Config, error) {
	out := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: c.NoVerify}
	if c.CACert != "" {
		pem, err := os.ReadFile(c.CACert)
		if err != nil {
			return nil, unusable("cacert: %w", err)
		}
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM(pem) {
			return nil, unusable("cacert %s holds no certificate", c.CACert)
		}
	}
	if c.Cert == "" {
		if c.Key != "" {
			return nil, unusable("key without cert")
		}
		return out, nil
	}
	key := c.Key
	if key == "" {
		key = c.Cert
	}
	if _, err := tls.LoadX509KeyPair(c.Cert, key); err != nil {
		return nil, unusable("cert: %w", err)
	}
	// Read for each connection, so that a renewed certificate counts without a restart.
	out.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(c.Cert, key)
		return &pair, err
	}
	return out, nil
}
