package embedded

import (
	"testing"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/dcs/dcstest"
)

func TestConformance(t *testing.T) {
	dcstest.Run(t, func(t *testing.T) dcstest.Env {
		c := newCluster(t, 3)
		c.startAll()
		c.leader()
		dial := func(t *testing.T) dcs.Store {
			client, err := Dial(c.ctx(), ClientConfig{Addrs: c.nodes[0].cfg.members(), Cluster: "service/test"})
			if err != nil {
				t.Fatal(err)
			}
			return client
		}
		client := dial(t)
		t.Cleanup(func() { client.Close() })
		return dcstest.Env{
			Stores: []dcs.Store{c.nodes[0].store, c.nodes[1].store, client, c.nodes[2].store},
			Open:   dial, TTL: 500 * time.Millisecond, Slack: 2 * time.Second, ChosenIDs: true,
		}
	})
}
