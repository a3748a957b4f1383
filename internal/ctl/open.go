package ctl

import (
	"context"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/dcs/embedded"
	"github.com/pgregent/regent/internal/config"
	"github.com/pgregent/regent/internal/tlsconf"
)

// OpenStore connects to the embedded store's nodes as a client that takes no part in
// raft. It is what programs put into Env.Open.
func OpenStore(ctx context.Context, at StoreAddress) (dcs.Store, error) {
	secured, err := embedded.Security{Files: at.Files, Secret: at.Secret.Reveal(), Accept: at.Accept.Reveal()}.TLS("client")
	if err != nil {
		return nil, err
	}
	client, err := embedded.Dial(ctx, embedded.ClientConfig{
		Addrs: at.Addrs, Cluster: at.Cluster, TLS: secured,
	})
	if err != nil {
		return nil, err
	}
	return client, nil
}

// RaftSecurity is what a configuration says about the protection of the store's port.
func RaftSecurity(r config.Raft) embedded.Security {
	return embedded.Security{
		Files:  tlsconf.Files{Cert: r.CertFile, Key: r.KeyFile, CA: r.CAFile},
		Secret: r.Password.Reveal(), Accept: r.AcceptPassword.Reveal(),
	}
}
