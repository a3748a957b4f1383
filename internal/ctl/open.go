package ctl

import (
	"context"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/dcs/embedded"
	"github.com/pgregent/regent/internal/stores"
)

// OpenStore connects to a store as a client that takes no part in it: to the nodes of the
// embedded store, or to another one. It is what programs put into Env.Open.
func OpenStore(ctx context.Context, at StoreAddress) (dcs.Store, error) {
	if at.Config != nil {
		return stores.Dial(ctx, at.Config, at.Cluster, nil)
	}
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
