package stores

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/dcs/etcd3"
	"github.com/pgregent/regent/internal/config"
)

func etcdConfig(ctx context.Context, e config.Etcd3, prefix string, log *slog.Logger) (etcd3.Config, error) {
	secured, err := clientTLS(clientFiles{ca: e.CACert, cert: e.Cert, key: e.Key, password: e.KeyPassword.Reveal()})
	if err != nil {
		return etcd3.Config{}, fmt.Errorf("open etcd: %w: %w", dcs.ErrBroken, err)
	}
	cfg := etcd3.Config{
		Endpoints: e.Endpoints, Fixed: e.Fixed, Prefix: prefix, TLS: secured,
		Username: e.Username, Password: e.Password.Reveal(), Logger: log,
	}
	if e.SRV != "" {
		cfg.Endpoints, err = lookupSRV(ctx, net.DefaultResolver.LookupSRV, e.SRV, e.SRVSuffix)
		if err != nil {
			return etcd3.Config{}, err
		}
	}
	return cfg, nil
}

type srvLookup func(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)

// lookupSRV finds the servers that a domain's records name. Patroni's order: records for
// clients first, and TLS before plain text. The records of peers, which it would ask for the
// addresses of clients, are not used.
func lookupSRV(ctx context.Context, lookup srvLookup, domain, suffix string) ([]string, error) {
	var failures []error
	for _, r := range []struct{ service, scheme string }{
		{"etcd-client-ssl", "https"}, {"etcd-client", "http"}, {"etcd-ssl", "https"}, {"etcd", "http"},
	} {
		service := r.service
		if suffix != "" {
			service += "-" + suffix
		}
		_, records, err := lookup(ctx, service, "tcp", domain)
		if err != nil {
			failures = append(failures, err)
			continue
		}
		var out []string
		for _, rec := range records {
			out = append(out, r.scheme+"://"+net.JoinHostPort(strings.TrimSuffix(rec.Target, "."), fmt.Sprint(rec.Port)))
		}
		if len(out) > 0 {
			return out, nil
		}
	}
	return nil, fmt.Errorf("open etcd: %w: no SRV record of %s names a server: %w", dcs.ErrUnavailable, domain, errors.Join(failures...))
}
