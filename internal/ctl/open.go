package ctl

import (
	"context"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/dcs/embedded"
)

// OpenStore connects to the embedded store's nodes as a client that takes no part in
// raft. It is what programs put into Env.Open.
func OpenStore(ctx context.Context, at StoreAddress) (dcs.Store, error) {
	client, err := embedded.Dial(ctx, embedded.ClientConfig{
		Addrs: at.Addrs, Cluster: at.Cluster, Secret: at.Secret.Reveal(),
	})
	if err != nil {
		return nil, err
	}
	return client, nil
}
