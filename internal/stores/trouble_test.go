package stores

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/dcs/consul/consultest"
	"github.com/pgregent/regent/dcs/etcd3/etcdtest"
	"github.com/pgregent/regent/internal/config"
)

// What a user has to change when the store can't be used is said, on etcd and on Consul: a wrong
// address, a wrong port, TLS where there is none, and servers without a majority. Passwords,
// tokens and certificates have tests of their own (TestEtcdOverTLS, and those of the two stores).
func TestTroubleSaysWhatToDo(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers of etcd and Consul")
	}
	etcd := etcdtest.Start(t, etcdtest.Options{Version: etcdtest.V34, Servers: 3})
	consul := consultest.Start(t, "c0", nil)
	alone := consultest.Start(t, "c1", map[string]any{ // it waits for two that never come
		"bootstrap_expect": 3, "performance": map[string]any{"raft_multiplier": 1, "rpc_hold_timeout": "100ms"},
	})
	for what, section := range map[string]struct{ text, says, todo string }{
		"etcd, nobody listens":   {"etcd3: {host: '127.0.0.1:1'}", "connection refused", "start the server, or correct the address in the section etcd3"},
		"etcd, no such name":     {"etcd3: {host: 'etcd.invalid:2379'}", "etcd.invalid", "the name doesn't resolve: correct it in the section etcd3"},
		"etcd, a Consul's port":  {"etcd3: {host: '" + consul.HTTP + "'}", consul.HTTP, "something else listens there"},
		"etcd, TLS to none":      {"etcd3: {protocol: https, host: '" + etcd.Addr(0) + "'}", etcd.Addr(0), "set etcd3.protocol to http"},
		"Consul, nobody listens": {"consul: {host: '127.0.0.1:1'}", "connection refused", "start the server, or correct the address in the section consul"},
		"Consul, no such name":   {"consul: {host: 'consul.invalid:8500'}", "consul.invalid", "the name doesn't resolve: correct it in the section consul"},
		"Consul, an etcd's port": {"consul: {host: '" + etcd.Addr(0) + "'}", "404", "something else listens there"},
		"Consul, TLS to none":    {"consul: {scheme: https, host: '" + consul.HTTP + "'}", consul.HTTP, "set consul.scheme to http"},
		"Consul, no leader":      {"consul: {host: '" + alone.HTTP + "'}", "No cluster leader", "Consul needs a majority of its servers"},
	} {
		t.Run(what, func(t *testing.T) { troubled(t, section.text, section.says, section.todo) })
	}
	etcd.Kill(1)
	etcd.Kill(2)
	t.Run("etcd, no majority", func(t *testing.T) {
		troubled(t, "etcd3: {host: '"+etcd.Addr(0)+"'}", "a majority")
	})
}

// troubled uses the store until reading, writing and leases all fail as they should. Servers
// that have just lost a majority or are just coming up may say something else for a moment.
func troubled(t *testing.T, section string, says ...string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "patroni.yml")
	if err := os.WriteFile(file, []byte("scope: demo\nname: n1\n"+section+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), c, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	calls := []func(context.Context) error{
		func(ctx context.Context) error { _, err := s.View(ctx, dcs.Linearizable); return err },
		func(ctx context.Context) error { _, err := s.Grant(ctx, "", 20*time.Second); return err },
		func(ctx context.Context) error {
			_, err := s.Commit(ctx, dcs.Txn{Writes: []dcs.Write{dcs.Put("k", nil)}})
			return err
		},
	}
	for end := time.Now().Add(30 * time.Second); ; {
		errs := make([]error, len(calls))
		var asked sync.WaitGroup
		for i, call := range calls {
			asked.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				errs[i] = call(ctx)
			})
		}
		asked.Wait()
		wrong := ""
		for _, err := range errs {
			wrong += lacking(err, says)
		}
		if wrong == "" {
			t.Log(errs[0])
			return
		}
		if time.Now().After(end) {
			t.Fatal(wrong)
		}
	}
}

// lacking is what is wrong with an error, as a line; empty: it is as it should be.
func lacking(err error, says []string) string {
	if err == nil {
		return "\nit succeeded"
	}
	if errors.Is(err, dcs.ErrRefused) {
		return "\nit is a refusal, which would demote a primary: " + err.Error()
	}
	for _, want := range says {
		if !strings.Contains(err.Error(), want) {
			return "\nit doesn't say " + want + ": " + err.Error()
		}
	}
	return ""
}
