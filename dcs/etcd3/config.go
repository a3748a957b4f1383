package etcd3

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strings"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/internal/mono"
)

// Config of a client of one cluster's keys.
type Config struct {
	// Endpoints are servers' addresses: http://host:port or https://host:port. One that
	// answers is enough.
	Endpoints []string
	// Fixed: nothing but Endpoints is used, as when they are proxies. Otherwise the
	// servers that etcd itself names are used beside them.
	Fixed bool
	// Prefix of the cluster's keys, with a slash at both ends; see dcs.BasePath.
	Prefix string
	// TLS for https endpoints; nil trusts the system's authorities.
	TLS *tls.Config
	// Username and Password, if etcd wants to know.
	Username, Password string
	// Logger; nil: silent.
	Logger *slog.Logger

	now func() events.Instant
}

// LogValue keeps the password out of logs.
func (c Config) LogValue() slog.Value {
	return slog.GroupValue(slog.Any("endpoints", c.Endpoints), slog.String("prefix", c.Prefix),
		slog.String("username", c.Username))
}

// withDefaults also refuses what can't work.
func (c Config) withDefaults() (Config, error) {
	if len(c.Endpoints) == 0 {
		return c, fmt.Errorf("%w: no endpoint", dcs.ErrBroken)
	}
	c.Endpoints = slices.Clone(c.Endpoints)
	for i, raw := range c.Endpoints {
		u, err := normalEndpoint(raw)
		if err != nil {
			return c, fmt.Errorf("%w: %w", dcs.ErrBroken, err)
		}
		c.Endpoints[i] = u
	}
	if !strings.HasPrefix(c.Prefix, "/") || !strings.HasSuffix(c.Prefix, "/") {
		return c, fmt.Errorf("%w: prefix %q has no slash at both ends", dcs.ErrBroken, c.Prefix)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.now == nil {
		c.now = mono.Now
	}
	return c, nil
}

// normalEndpoint is scheme://host:port of a URL, whatever path it has.
func normalEndpoint(raw string) (string, error) {
	u, err := url.Parse(raw)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" {
		return "", fmt.Errorf("endpoint %q is not of the form http://host:port or https://host:port", raw)
	}
	port := u.Port()
	if port == "" {
		port = "2379"
	}
	return u.Scheme + "://" + net.JoinHostPort(u.Hostname(), port), nil
}
