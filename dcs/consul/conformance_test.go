package consul

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"syscall"
	"testing"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/dcs/consul/consultest"
	"github.com/pgregent/regent/dcs/dcstest"
	"github.com/pgregent/regent/events"
)

// doubled asks for twice the ttl, so that the suite gets what it asks for: a ttl is
// registered at half (safety rule S6), which TestHalfOfTheTTL holds.
type doubled struct{ dcs.Store }

func (d doubled) Grant(ctx context.Context, id events.LeaseID, ttl time.Duration) (dcs.Lease, error) {
	return d.Store.Grant(ctx, id, 2*ttl)
}

// bounds are those of servers with quick settings. A session ends after twice its ttl, and
// a new leader waits for that from its first moment; the suite holds leases of three ttls.
func bounds() dcstest.Bounds {
	const ttl = time.Second
	return dcstest.Bounds{
		TTL: ttl, Late: ttl + 2*time.Second, LateAfterFault: 2*3*ttl + 3*time.Second,
		Failover: 15 * time.Second, Overrun: time.Second, Transit: 500 * time.Millisecond,
		Patience: 40 * time.Second, Storm: 6 * time.Second,
	}
}

// One real server keeps the contract.
func TestConformanceOneServer(t *testing.T) {
	if testing.Short() {
		t.Skip("a real server and a minute")
	}
	t.Parallel()
	dcstest.Run(t, func(t *testing.T) dcstest.Env {
		s := consultest.Start(t, "c0", nil)
		env := dcstest.Env{Backend: "consul, 1 server", Bounds: bounds()}
		c := &cluster{servers: []*consultest.Server{s}}
		c.join(t, &env, 0, 0, 0)
		return env
	})
}

// Three real servers keep it when they are killed, frozen and cut off.
func TestConformanceThreeServers(t *testing.T) {
	if testing.Short() {
		t.Skip("real servers and a minute")
	}
	t.Parallel()
	dcstest.Run(t, func(t *testing.T) dcstest.Env {
		env := dcstest.Env{Backend: "consul, 3 servers", Bounds: bounds()}
		c := newThree(t, nil)
		c.join(t, &env, 0, 1, 2)
		return env
	})
}

// How late leases end, writes are shown and another server leads: the model's timing is compared
// with the recording of this. Half of a ttl is registered and believed (safety rule S6).
func TestTimingOfConsul(t *testing.T) {
	if testing.Short() {
		t.Skip("real servers and some seconds")
	}
	env := dcstest.Env{Backend: "consul 1.15, three servers", Bounds: bounds()}
	newThree(t, nil).join(t, &env, 0, 1, 2)
	for i, s := range env.Stores {
		env.Stores[i] = s.(doubled).Store
	}
	dcstest.MeasureTiming(t, env, 2*time.Second)
}

// newThree starts three servers that find each other through a mesh.
func newThree(t *testing.T, settings map[string]any) *cluster {
	c := &cluster{mesh: newMesh(t)}
	gossip, rpc := consultest.FreePort(), consultest.FreePort()
	for i := range 3 {
		if err := c.mesh.carry(i, gossip, gossip, rpc); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		own := map[string]any{
			"bootstrap_expect": 3, "bind_addr": bound(i), "advertise_addr": told(i),
			"retry_join": []string{told(0), told(1), told(2)},
			"ports": map[string]any{
				"http": consultest.FreePort(), "dns": -1, "grpc": -1, "grpc_tls": -1, "serf_wan": -1,
				"serf_lan": gossip, "server": rpc,
			},
		}
		maps.Copy(own, settings)
		c.servers = append(c.servers, consultest.Start(t, fmt.Sprint("c", i), own))
	}
	return c
}

// cluster is what a harness does to servers and to the links of clients.
type cluster struct {
	servers []*consultest.Server
	links   []*link // of each client
	mesh    *mesh   // between servers; nil when there is one
}

// join gives the environment clients at home on the given servers, and waits for the
// servers to be usable.
func (c *cluster) join(t *testing.T, env *dcstest.Env, homes ...int) {
	open := func(server int) *Store {
		l := newLink(t, c.servers[server].HTTP)
		c.links = append(c.links, l)
		return opened(t, Config{Host: l.wire.Addr(), Name: "pg01", Timeout: 3 * time.Second})
	}
	for _, home := range homes {
		env.Stores = append(env.Stores, doubled{open(home)})
	}
	more := 0
	env.Open = func() (dcs.Store, error) {
		s, err := Open(context.Background(), Config{Host: c.servers[0].HTTP, Base: dcs.BasePath("service", "main")})
		return doubled{s}, err
	}
	env.Elsewhere = func() (dcs.Store, error) {
		more++
		s, err := Open(context.Background(), Config{Host: c.servers[0].HTTP, Base: dcs.BasePath("service", fmt.Sprint("other-", more))})
		return doubled{s}, err
	}
	env.Homes, env.Faults = homes, c
	for _, s := range env.Stores {
		usable(t, s)
	}
}

func (c *cluster) Servers() int { return len(c.servers) }

// Leader asks everybody who leads, until one that is led says who.
func (c *cluster) Leader(ctx context.Context) (int, error) {
	for ctx.Err() == nil {
		for i, s := range c.servers {
			// Its own word: only the leader knows that it leads and is in touch.
			if led := s.Get(ctx, "/v1/operator/autopilot/health"); led != "" && c.leads(ctx, i) {
				return i, nil
			}
		}
		rest(ctx, 20*time.Millisecond)
	}
	return 0, fmt.Errorf("no server leads: %w", ctx.Err())
}

func (c *cluster) leads(ctx context.Context, i int) bool {
	self := c.servers[i].Get(ctx, "/v1/status/leader")
	return self == fmt.Sprintf("%q", c.servers[i].RPC())
}

func (c *cluster) Lacks(k dcstest.Kind) string {
	switch {
	case k == dcstest.Compact:
		return "a blocking query answers with all there is, so no watch reads up on a past"
	case c.mesh == nil && (k == dcstest.KillServer || k == dcstest.PauseServer || k == dcstest.IsolateServer):
		return "there is one server, and nobody goes on without it"
	}
	return ""
}

func (c *cluster) Inflict(k dcstest.Kind, target int) (heal func() error, err error) {
	switch k {
	case dcstest.KillServer:
		s := c.servers[target]
		return s.Start, s.Kill()
	case dcstest.PauseServer:
		s := c.servers[target]
		return func() error { return s.Signal(syscall.SIGCONT, false) }, s.Signal(syscall.SIGSTOP, false)
	case dcstest.IsolateServer:
		c.mesh.isolate(target, true)
		return func() error { c.mesh.isolate(target, false); return nil }, nil
	case dcstest.CutClient:
		c.links[target].wire.Cut(true)
		return func() error { c.links[target].wire.Cut(false); return nil }, nil
	case dcstest.LoseReplies:
		c.links[target].loseReplies(true)
		return func() error { c.links[target].loseReplies(false); return nil }, nil
	}
	return nil, errors.New(c.Lacks(k))
}
