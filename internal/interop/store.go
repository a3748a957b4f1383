package interop

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/pgregent/regent/dcs/consul/consultest"
	"github.com/pgregent/regent/dcs/etcd3/etcdtest"
	"github.com/pgregent/regent/pgmgr/pgtest"
)

// KV is a key below the scope as it lies in the store, sorted by name.
type KV struct {
	Key, Value string
	// Lease is the lease or session that the key is attached to; empty: none.
	Lease string
}

// String is for messages.
func (kv KV) String() string {
	if kv.Lease != "" {
		return fmt.Sprintf("%s [%s] %s", kv.Key, kv.Lease, kv.Value)
	}
	return fmt.Sprintf("%s %s", kv.Key, kv.Value)
}

// Keys reads all keys below the scope, past Regent's own code.
type Keys func(context.Context) ([]KV, error)

// The scope's place in etcd, and in Consul without the first slash.
const base = "/service/demo/"

// startStore runs a server, and returns the section of patroni.yml that names it.
func (c *Cluster) startStore(kind string) string {
	c.tb.Helper()
	if kind == "consul" {
		if _, err := consultest.Find(); err != nil { // else it is in this user's reach
			if env, ok := c.tb.(interface{ Setenv(string, string) }); ok {
				env.Setenv("CONSUL_BIN", filepath.Join(filepath.Dir(pgtest.Binary(c.tb, "regent")), "consul"))
			}
		}
		server := consultest.Start(c.tb, "c0", nil)
		c.Keys = func(ctx context.Context) ([]KV, error) { return consulKeys(ctx, server.HTTP) }
		return fmt.Sprintf("consul:\n  host: %s\n", server.HTTP)
	}
	server := etcdtest.Start(c.tb, etcdtest.Options{Version: etcdtest.V34})
	c.Keys = func(ctx context.Context) ([]KV, error) { return etcdKeys(ctx, server) }
	return fmt.Sprintf("etcd3:\n  host: %s\n", server.Addr(0))
}

func consulKeys(ctx context.Context, address string) ([]KV, error) {
	client, err := api.NewClient(&api.Config{Address: address, Scheme: "http"})
	if err != nil {
		return nil, err
	}
	pairs, _, err := client.KV().List(strings.TrimPrefix(base, "/"), (&api.QueryOptions{RequireConsistent: true}).WithContext(ctx))
	var out []KV
	for _, p := range pairs {
		out = append(out, KV{Key: strings.TrimPrefix(p.Key, strings.TrimPrefix(base, "/")), Value: string(p.Value), Lease: p.Session})
	}
	return out, err
}

func etcdKeys(ctx context.Context, server *etcdtest.Cluster) (out []KV, err error) {
	err = server.Use(ctx, 0, func(ctx context.Context, conn *grpc.ClientConn) error {
		r, err := pb.NewKVClient(conn).Range(ctx, &pb.RangeRequest{Key: []byte(base), RangeEnd: []byte(strings.TrimSuffix(base, "/") + "0")})
		for _, kv := range r.GetKvs() {
			item := KV{Key: strings.TrimPrefix(string(kv.Key), base), Value: string(kv.Value)}
			if kv.Lease != 0 {
				item.Lease = fmt.Sprintf("%x", kv.Lease)
			}
			out = append(out, item)
		}
		return err
	})
	return out, err
}

// AwaitKeys returns the keys once they are as wanted; the condition says what is missing.
func (c *Cluster) AwaitKeys(ctx context.Context, wanted func(map[string]KV) error) (map[string]KV, error) {
	for {
		all, err := c.Keys(ctx)
		found := map[string]KV{}
		for _, kv := range all {
			found[kv.Key] = kv
		}
		if err == nil {
			if err = wanted(found); err == nil {
				return found, nil
			}
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return found, fmt.Errorf("wait for keys: %w: %w", context.Cause(ctx), err)
		}
	}
}
