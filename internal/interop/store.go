package interop

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/pgregent/regent/dcs/consul/consultest"
	"github.com/pgregent/regent/dcs/etcd3/etcdtest"
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

// Store reads and writes the scope's keys past Regent's own code.
type Store interface {
	// Keys returns all keys below the scope, by name.
	Keys(context.Context) ([]KV, error)
	// Put writes a key without a lease.
	Put(ctx context.Context, key, value string) error
}

// The scope's place in etcd, and in Consul without the first slash.
const base = "/service/demo/"

// startStore runs a server, and returns the section of patroni.yml that names it.
func (c *Cluster) startStore(kind string) string {
	c.tb.Helper()
	if kind == "consul" {
		server := consultest.Start(c.tb, "c0", nil)
		client, err := api.NewClient(&api.Config{Address: server.HTTP, Scheme: "http"})
		if err != nil {
			c.tb.Fatal(err)
		}
		c.Store = consulStore{client.KV()}
		return fmt.Sprintf("consul:\n  host: %s\n", server.HTTP)
	}
	server := etcdtest.Start(c.tb, etcdtest.Options{Version: etcdtest.V34})
	c.Store = etcdStore{server}
	return fmt.Sprintf("etcd3:\n  host: %s\n", server.Addr(0))
}

type consulStore struct{ kv *api.KV }

func (s consulStore) Keys(ctx context.Context) ([]KV, error) {
	prefix := strings.TrimPrefix(base, "/")
	pairs, _, err := s.kv.List(prefix, (&api.QueryOptions{RequireConsistent: true}).WithContext(ctx))
	var out []KV
	for _, p := range pairs {
		out = append(out, KV{Key: strings.TrimPrefix(p.Key, prefix), Value: string(p.Value), Lease: p.Session})
	}
	return out, err
}

func (s consulStore) Put(ctx context.Context, key, value string) error {
	pair := &api.KVPair{Key: strings.TrimPrefix(base, "/") + key, Value: []byte(value)}
	_, err := s.kv.Put(pair, (&api.WriteOptions{}).WithContext(ctx))
	return err
}

type etcdStore struct{ server *etcdtest.Cluster }

func (s etcdStore) Keys(ctx context.Context) (out []KV, err error) {
	err = s.server.Use(ctx, 0, func(ctx context.Context, conn *grpc.ClientConn) error {
		end := strings.TrimSuffix(base, "/") + "0" // the byte after the slash
		r, err := pb.NewKVClient(conn).Range(ctx, &pb.RangeRequest{Key: []byte(base), RangeEnd: []byte(end)})
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

func (s etcdStore) Put(ctx context.Context, key, value string) error {
	return s.server.Use(ctx, 0, func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := pb.NewKVClient(conn).Put(ctx, &pb.PutRequest{Key: []byte(base + key), Value: []byte(value)})
		return err
	})
}

// AwaitKeys returns the keys once they are as wanted; the condition says what is missing.
func (c *Cluster) AwaitKeys(ctx context.Context, wanted func(map[string]string) error) (map[string]string, error) {
	for {
		all, err := c.Store.Keys(ctx)
		found := map[string]string{}
		for _, kv := range all {
			found[kv.Key] = kv.Value
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
