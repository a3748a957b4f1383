package etcd3

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/dcs/dcstest"
	"github.com/pgregent/regent/dcs/etcd3/etcdtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// slow keeps tests that start servers out of the quick run.
func slow(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts etcd servers")
	}
}

// etcdBounds of a cluster with an election time-out of 0.5 s, whose shortest lease is 1 s,
// with room for a machine that is busy with other tests.
func etcdBounds() dcstest.Bounds {
	return dcstest.Bounds{
		TTL: time.Second, Late: 3 * time.Second, LateAfterFault: 4 * time.Second,
		Failover: 8 * time.Second, Overrun: time.Second, Transit: 400 * time.Millisecond,
		Patience: 30 * time.Second, Storm: 10 * time.Second,
	}
}

// etcdEnv is an Env on a cluster: some clients that know every server, and one for each
// server that knows no other, when there are several. Each client has proxies of its own.
func etcdEnv(t *testing.T, name string, c *etcdtest.Cluster) dcstest.Env {
	f := &etcdFaults{cluster: c}
	env := dcstest.Env{Backend: name, Bounds: etcdBounds(), Faults: f}
	if f.Servers() > 1 {
		env.Spared = map[dcstest.Kind]string{
			dcstest.PauseServer: "a leader of etcd that is thawed may revoke leases that are alive (docs/GUARANTEES.md)",
		}
	}
	add := func(home int, servers ...int) {
		proxied := f.proxies(t, servers)
		s := open(t, "/service/conformance/", proxied...)
		env.Stores = append(env.Stores, s)
		env.Homes = append(env.Homes, home)
	}
	all := make([]int, f.Servers())
	for i := range all {
		all[i] = i
	}
	add(dcstest.AnyServer, all...)
	if len(all) > 1 {
		for i := range all {
			add(i, i)
		}
	}
	add(dcstest.AnyServer, all...)
	env.Open = func() (dcs.Store, error) { return Open(testConfig("/service/conformance/", c.URLs()...)) }
	env.Elsewhere = func() (dcs.Store, error) { return Open(testConfig("/service/conformance-2/", c.URLs()...)) }
	return env
}

func testConfig(prefix string, urls ...string) Config {
	return Config{Endpoints: urls, Fixed: true, Prefix: prefix}
}

func open(t *testing.T, prefix string, urls ...string) *Store {
	t.Helper()
	s, err := Open(testConfig(prefix, urls...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// One server of Debian's version keeps the contract.
func TestConformanceOfOneServer(t *testing.T) {
	slow(t)
	dcstest.Run(t, func(t *testing.T) dcstest.Env {
		return etcdEnv(t, "etcd 3.4", etcdtest.Start(t, etcdtest.Options{Version: etcdtest.V34}))
	})
}

// Three servers keep it while they are killed, frozen and cut off.
func TestConformanceOfThreeServers(t *testing.T) {
	slow(t)
	dcstest.Run(t, func(t *testing.T) dcstest.Env {
		return etcdEnv(t, "etcd 3.6, three", etcdtest.Start(t, etcdtest.Options{Version: etcdtest.V36, Servers: 3}))
	})
}

// How late leases end, writes are shown and another server leads: the model's timing is compared
// with the recording of this.
func TestTimingOfEtcd(t *testing.T) {
	slow(t)
	c := etcdtest.Start(t, etcdtest.Options{Version: etcdtest.V36, Servers: 3})
	dcstest.MeasureTiming(t, etcdEnv(t, "etcd 3.6, three servers", c), 2*time.Second)
}

// etcdFaults inflicts faults on a cluster, and on the proxies that its clients go through.
type etcdFaults struct {
	cluster *etcdtest.Cluster
	clients [][]*dcstest.Proxy
}

// proxies are a new client's way to these servers.
func (f *etcdFaults) proxies(t *testing.T, servers []int) (urls []string) {
	t.Helper()
	var all []*dcstest.Proxy
	for _, i := range servers {
		p, err := dcstest.NewProxy(f.cluster.Addr(i))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = p.Close() })
		all = append(all, p)
		urls = append(urls, "http://"+p.Addr())
	}
	f.clients = append(f.clients, all)
	return urls
}

func (f *etcdFaults) Servers() int { return len(f.cluster.URLs()) }

func (f *etcdFaults) Leader(ctx context.Context) (int, error) { return f.cluster.Leader(ctx) }

func (f *etcdFaults) Lacks(k dcstest.Kind) string {
	switch k {
	case dcstest.KillServer, dcstest.PauseServer, dcstest.IsolateServer:
		if f.Servers() == 1 {
			return "there is only one"
		}
	}
	return ""
}

func (f *etcdFaults) Inflict(k dcstest.Kind, target int) (heal func() error, err error) {
	switch k {
	case dcstest.KillServer:
		f.cluster.Kill(target)
		return func() error { return f.cluster.Run(target) }, nil
	case dcstest.PauseServer:
		return func() error { return f.cluster.Signal(target, syscall.SIGCONT) }, f.cluster.Signal(target, syscall.SIGSTOP)
	case dcstest.IsolateServer:
		return f.isolate(target), nil
	case dcstest.CutClient:
		f.each(target, func(p *dcstest.Proxy) { p.Cut(true) })
		return func() error { f.each(target, func(p *dcstest.Proxy) { p.Cut(false) }); return nil }, nil
	case dcstest.LoseReplies:
		f.each(target, func(p *dcstest.Proxy) { p.LoseReplies(true) })
		return func() error { f.each(target, func(p *dcstest.Proxy) { p.LoseReplies(false) }); return nil }, nil
	case dcstest.Compact:
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		return func() error { return nil }, f.cluster.Compact(ctx)
	default:
		return nil, errors.New("unknown kind of fault")
	}
}

func (f *etcdFaults) each(client int, do func(*dcstest.Proxy)) {
	for _, p := range f.clients[client] {
		do(p)
	}
}

// isolate cuts a server off from the others, and from those clients that know more servers.
func (f *etcdFaults) isolate(server int) (heal func() error) {
	mend := f.cluster.Isolate(server)
	var cut []*dcstest.Proxy
	for _, proxies := range f.clients {
		if len(proxies) > 1 {
			cut = append(cut, proxies[server])
		}
	}
	for _, p := range cut {
		p.Cut(true)
	}
	return func() error {
		mend()
		for _, p := range cut {
			p.Cut(false)
		}
		return nil
	}
}
