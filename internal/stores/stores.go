package stores

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/dcs/consul"
	"github.com/pgregent/regent/dcs/embedded"
	"github.com/pgregent/regent/dcs/etcd3"
	"github.com/pgregent/regent/internal/config"
	"github.com/pgregent/regent/internal/tlsconf"
)

// Names are the sections of the stores that this build has.
func Names() []string { return []string{"consul", "etcd3", "raft"} }

// Open opens the store of an agent. The embedded one becomes part of its cluster; others
// may be down meanwhile, and are waited for by their calls.
func Open(ctx context.Context, c *config.Config, log *slog.Logger) (dcs.Store, error) {
	switch c.Store {
	case "raft":
		s, err := Embedded(ctx, c, log)
		if err != nil {
			return nil, err
		}
		return s, nil
	default:
		return Dial(ctx, c, dcs.BasePath(c.Namespace, c.Scope), log)
	}
}

// Dial opens a store that is no part of this program, as a client of the keys below a base
// path (see dcs.BasePath). A nil log is silent.
func Dial(ctx context.Context, c *config.Config, base string, log *slog.Logger) (dcs.Store, error) {
	switch c.Store {
	case "etcd3":
		cfg, err := etcdConfig(ctx, c.Etcd3, base, log)
		if err != nil {
			return nil, err
		}
		s, err := etcd3.Open(cfg)
		if err != nil {
			return nil, err
		}
		return s, nil
	case "consul":
		s, err := consul.Open(ctx, consulConfig(c, base, log))
		if err != nil {
			return nil, err
		}
		return s, nil
	default:
		return nil, fmt.Errorf("open the store `%s`: %w: it isn't built in", c.Store, dcs.ErrBroken)
	}
}

// Embedded opens this node's part of the embedded store, as its agent or as a witness.
func Embedded(ctx context.Context, c *config.Config, log *slog.Logger) (*embedded.Store, error) {
	r := c.Raft
	partners := make([]string, len(r.PartnerAddrs))
	for i, a := range r.PartnerAddrs {
		partners[i] = a.String()
	}
	secured, err := RaftSecurity(r).TLS(string(c.Name))
	if err != nil {
		return nil, err
	}
	return embedded.Open(ctx, embedded.Config{
		Name: c.Name, Cluster: dcs.BasePath(c.Namespace, c.Scope),
		SelfAddr: r.SelfAddr.String(), BindAddr: r.BindAddr.String(), PartnerAddrs: partners,
		DataDir: r.DataDir, TLS: secured, Logger: log,
		Timings: embedded.Timings{Heartbeat: r.HeartbeatTimeout, Election: r.ElectionTimeout, LeaderLease: r.LeaderLeaseTimeout},
	})
}

// RaftSecurity is what a configuration says about the protection of the embedded store's port.
func RaftSecurity(r config.Raft) embedded.Security {
	return embedded.Security{
		Files:  tlsconf.Files{Cert: r.CertFile, Key: r.KeyFile, CA: r.CAFile},
		Secret: r.Password.Reveal(), Accept: r.AcceptPassword.Reveal(),
	}
}

// Reload lets an open store use what a reloaded configuration may change: secrets.
func Reload(store dcs.Store, next *config.Config) error {
	switch s := store.(type) {
	case *embedded.Store:
		secured, err := RaftSecurity(next.Raft).TLS(string(next.Name))
		if err != nil {
			return err
		}
		return s.Secure(secured)
	case *etcd3.Store:
		s.Login(next.Etcd3.Username, next.Etcd3.Password.Reveal())
	case *consul.Store:
		s.UseToken(next.Consul.Token.Reveal())
	}
	return nil
}

// Same reports whether two configurations name the same store in the same way, but for what
// Reload may change.
func Same(now, next *config.Config) bool {
	if now.Store != next.Store {
		return false
	}
	switch now.Store {
	case "raft":
		return SameRaft(now.Raft, next.Raft)
	case "etcd3":
		a, b := now.Etcd3, next.Etcd3
		a.Username, a.Password = b.Username, b.Password
		return reflect.DeepEqual(a, b)
	case "consul":
		a, b := now.Consul, next.Consul
		a.Token = b.Token
		return reflect.DeepEqual(a, b)
	default:
		return true
	}
}

// SameRaft compares what can't change while a node of the embedded store runs: all but the
// protection of its port.
func SameRaft(now, next config.Raft) bool {
	now.Password, now.AcceptPassword = next.Password, next.AcceptPassword
	now.CertFile, now.KeyFile, now.CAFile = next.CertFile, next.KeyFile, next.CAFile
	return reflect.DeepEqual(now, next)
}
