package stores

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/pgregent/regent/dcs/consul/consultest"
	"github.com/pgregent/regent/internal/sandbox"
	"github.com/pgregent/regent/pgmgr/pgtest"
)

// Agents make a cluster on Consul: Patroni's keys, one session each, half of the ttl, and
// commands and switchovers as on any store.
func TestAgentsOnConsul(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute: real clusters are left out of -short")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	server := consultest.Start(t, "c0", nil)
	cluster, err := sandbox.New(sandbox.Options{
		Dir: filepath.Join(pgtest.SocketDir(t), "c"), Bin: filepath.Dir(pgtest.Binary(t, "regent")), PGBin: pgtest.BinDir(t),
		Store: fmt.Sprintf("consul:\n  host: %s\n  register_service: true\n", server.HTTP),
		TTL:   20 * time.Second, LoopWait: time.Second, RetryTimeout: 3 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if t.Failed() {
			for _, n := range cluster.Nodes() {
				t.Logf("%s said:\n%s", n.Name(), n.Tail(40))
			}
		}
		if err := cluster.Close(); err != nil {
			t.Error(err)
		}
	}()
	began := time.Now()
	if err := cluster.PowerOn(); err != nil {
		t.Fatal(err)
	}
	primary, err := cluster.AwaitStreaming(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.1f s: a primary and two replicas", time.Since(began).Seconds())
	client, err := api.NewClient(&api.Config{Address: server.HTTP, Scheme: "http"})
	if err != nil {
		t.Fatal(err)
	}
	oneSessionEach(t, client, primary)
	for _, args := range [][]string{
		{"-c", primary.ConfigFile(), "list"}, {"-d", "consul://" + server.HTTP, "list", "demo"},
	} {
		out, err := exec.CommandContext(ctx, pgtest.Binary(t, "regent"), args...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), primary.Name()) || !strings.Contains(string(out), "Leader") {
			t.Errorf("regent %v: %v\n%s", args, err, out)
		}
	}

	to := cluster.Nodes()[0]
	if to == primary {
		to = cluster.Nodes()[1]
	}
	began = time.Now()
	if answer, err := primary.Switchover(ctx, primary.Name(), to.Name()); err != nil {
		t.Fatalf("%v: %s", err, answer)
	}
	now, err := cluster.AwaitStreaming(ctx)
	if err != nil || now != to {
		t.Fatalf("switched over to %s: %v, %v", to.Name(), now, err)
	}
	t.Logf("switchover: all stream again after %.1f s", time.Since(began).Seconds())
	oneSessionEach(t, client, to)
}

// oneSessionEach: the leader key and its holder's member key are held by one session.
func oneSessionEach(t *testing.T, client *api.Client, primary *sandbox.Node) {
	t.Helper()
	pairs, _, err := client.KV().List("service/demo/", &api.QueryOptions{RequireConsistent: true})
	if err != nil {
		t.Fatal(err)
	}
	held := map[string]string{}
	var keys []string
	for _, p := range pairs {
		key := strings.TrimPrefix(p.Key, "service/demo/")
		keys, held[key] = append(keys, key), p.Session
		if key == "leader" && string(p.Value) != primary.Name() {
			t.Errorf("the leader key says %s, not %s", p.Value, primary.Name())
		}
	}
	if held["leader"] == "" || held["leader"] != held["members/"+primary.Name()] {
		t.Errorf("the leader key is held by session %q, its holder's member key by %q", held["leader"], held["members/"+primary.Name()])
	}
	for _, want := range []string{"config", "initialize", "leader", "members/n1", "members/n2", "members/n3", "status"} {
		if !slices.Contains(keys, want) {
			t.Errorf("there is no key %s among %v", want, keys)
		}
	}
	sessions, _, err := client.Session().List(nil)
	if err != nil || len(sessions) != 3 {
		t.Errorf("%d sessions, want one for each of three agents: %v", len(sessions), err)
	}
	for _, s := range sessions {
		if s.TTL != "10s" || s.Behavior != "delete" || !strings.HasPrefix(s.Name, "demo-n") {
			t.Errorf("session %+v", s)
		}
	}
}
