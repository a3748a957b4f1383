package ctl

import (
	"cmp"
	"net"
	"slices"
	"strings"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/internal/config"
	"github.com/pgregent/regent/internal/stores"
)

// builtIn lists the stores that commands can reach.
func builtIn() string { return strings.Join(stores.Names(), ", ") }

func notBuiltIn(store, where string) error {
	return fail("The store `%s` %s isn't built in yet. Available implementations: %s", store, where, builtIn())
}

// outside completes the address of a store that isn't in the agents. It serves many
// clusters, so one has to be named.
func (at StoreAddress) outside(c *config.Config) (StoreAddress, error) {
	if at.Cluster == "" && c.Scope != "" {
		at.Cluster = dcs.BasePath(c.Namespace, c.Scope)
	}
	if at.Cluster == "" {
		return at, fail("The store `%s` may hold several clusters: name one as an argument, or as scope in the file", c.Store)
	}
	at.Config, at.Addrs = c, []string{c.Store}
	if c.Store == "etcd3" && len(c.Etcd3.Endpoints) > 0 {
		at.Addrs = c.Etcd3.Endpoints
	}
	if name := cmp.Or(c.Consul.URL, c.Consul.Host); c.Store == "consul" && name != "" {
		at.Addrs = []string{name}
	}
	return at, nil
}

// parse reads scheme://host:port[,host:port…][/namespace]. What else is needed, such as
// passwords and certificates, comes from the file's section. A namespace means nothing to
// the embedded store, which holds one cluster.
func (at StoreAddress) parse(raw string, c *config.Config, scope string) (StoreAddress, error) {
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok {
		return at, fail("The store's address %s has no scheme: write raft://HOST:PORT, etcd3://HOST:PORT or consul://HOST:PORT", raw)
	}
	switch scheme {
	case "raft", "etcd", "etcd3", "consul", "zookeeper", "exhibitor":
		if !slices.Contains(stores.Names(), scheme) {
			return at, notBuiltIn(scheme, "of "+raw)
		}
	default:
		return at, fail("Unknown dcs scheme: %s", scheme)
	}
	rest, namespace, named := strings.Cut(rest, "/")
	addrs := strings.Split(rest, ",")
	for i, addr := range addrs {
		addrs[i] = strings.TrimSpace(addr)
		host, port, err := net.SplitHostPort(addrs[i])
		if err != nil || host == "" || port == "" {
			return at, fail("The store's address %s holds %q, which is not HOST:PORT", raw, addr)
		}
	}
	at.Addrs = addrs
	if scheme == "raft" {
		return at, nil
	}
	changed := *c
	changed.Store = scheme
	if scheme == "consul" {
		changed.Consul.URL, changed.Consul.Host = "", addrs[0]
	}
	if scheme == "etcd3" {
		changed.Etcd3.SRV, changed.Etcd3.Endpoints = "", nil
		for _, addr := range addrs {
			protocol := changed.Etcd3.Protocol
			if protocol == "" {
				protocol = "http"
			}
			changed.Etcd3.Endpoints = append(changed.Etcd3.Endpoints, protocol+"://"+addr)
		}
	}
	if named && namespace != "" && scope != "" {
		at.Cluster = dcs.BasePath(namespace, scope)
	}
	return at.outside(&changed)
}
