package stores

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/pgregent/regent/dcs/etcd3/etcdtest"
	"github.com/pgregent/regent/internal/sandbox"
	"github.com/pgregent/regent/internal/sandbox/history"
	"github.com/pgregent/regent/internal/sandbox/storetest"
	"github.com/pgregent/regent/internal/sandbox/workload"
	"github.com/pgregent/regent/pgmgr/pgtest"
)

func TestMain(m *testing.M) { storetest.Main(m) }

// onEtcd runs three agents on three servers of etcd, under a writer.
type onEtcd struct {
	*testing.T
	ctx     context.Context
	etcd    *etcdtest.Cluster
	cluster *sandbox.Cluster
	began   time.Time
	writer  *workload.Writer
	watcher *workload.Watcher
}

// Agents make a cluster on etcd; it survives the death of etcd's leader and the silence of
// another server without a demotion, switches over, and fails over when the primary's host goes. Nobody ever sees two primaries.
func TestAgentsOnEtcd(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute: real clusters are left out of -short")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	w := &onEtcd{T: t, ctx: ctx, began: time.Now()}
	w.etcd = etcdtest.Start(t, etcdtest.Options{Version: etcdtest.V36, Servers: 3})
	var err error
	w.cluster, err = sandbox.New(sandbox.Options{
		Dir: filepath.Join(pgtest.SocketDir(t), "c"), Bin: filepath.Dir(pgtest.Binary(t, "regent")), PGBin: pgtest.BinDir(t),
		Store: fmt.Sprintf("etcd3:\n  hosts: ['%s']\n", strings.Join(w.etcd.URLs(), "', '")),
		TTL:   3 * time.Second, LoopWait: time.Second, RetryTimeout: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if t.Failed() {
			for _, n := range w.cluster.Nodes() {
				t.Logf("%s said:\n%s", n.Name(), n.Tail(40))
			}
		}
		if err := w.cluster.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := w.cluster.PowerOn(); err != nil {
		t.Fatal(err)
	}
	primary, err := w.cluster.AwaitStreaming(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.1f s: a primary and two replicas", time.Since(w.began).Seconds())
	w.oneLeaseEach(primary)
	w.commands(primary)
	w.underLoad(func() {
		w.loseEtcdServers(primary)
		w.switchOver(primary)
		w.losePrimary()
	})
}

// oneLeaseEach: in etcd there are Patroni's keys, and the leader key hangs on the lease of its
// holder's member key.
func (w *onEtcd) oneLeaseEach(primary *sandbox.Node) {
	w.Helper()
	leases, leader := map[string]int64{}, int64(0)
	var keys []string
	err := w.etcd.Use(w.ctx, 0, func(ctx context.Context, conn *grpc.ClientConn) error {
		r, err := pb.NewKVClient(conn).Range(ctx, &pb.RangeRequest{Key: []byte("/"), RangeEnd: []byte("0")})
		for _, kv := range r.GetKvs() {
			key := strings.TrimPrefix(string(kv.Key), "/service/demo/")
			keys = append(keys, key)
			if name, ok := strings.CutPrefix(key, "members/"); ok {
				leases[name] = kv.Lease
			}
			if key == "leader" {
				leader = kv.Lease
				if string(kv.Value) != primary.Name() {
					w.Errorf("the leader key says %s, not %s", kv.Value, primary.Name())
				}
			}
		}
		if err != nil {
			return err
		}
		all, err := pb.NewLeaseClient(conn).LeaseLeases(ctx, &pb.LeaseLeasesRequest{})
		if n := len(all.GetLeases()); err == nil && n != 3 {
			w.Errorf("there are %d leases, want one for each of three agents", n)
		}
		return err
	})
	if err != nil {
		w.Fatal(err)
	}
	if leader == 0 || leader != leases[primary.Name()] {
		w.Errorf("the leader key hangs on lease %x, its holder's member key on %x", leader, leases[primary.Name()])
	}
	for _, want := range []string{"config", "initialize", "leader", "members/n1", "members/n2", "members/n3", "status"} {
		if !slices.Contains(keys, want) {
			w.Errorf("there is no key %s among %v", want, keys)
		}
	}
}

// commands reach the cluster through etcd, by the member's file and by an address.
func (w *onEtcd) commands(primary *sandbox.Node) {
	w.Helper()
	address := "etcd3://" + strings.TrimPrefix(w.etcd.URLs()[1], "http://")
	for _, args := range [][]string{{"-c", primary.ConfigFile(), "list"}, {"-d", address, "list", "demo"}} {
		out, err := exec.CommandContext(w.ctx, pgtest.Binary(w.T, "regent"), args...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), primary.Name()) || !strings.Contains(string(out), "Leader") {
			w.Errorf("regent %v: %v\n%s", args, err, out)
		}
	}
}

// underLoad plays with a writer and a watcher of roles beside it, and judges what they saw.
func (w *onEtcd) underLoad(play func()) {
	w.writer = workload.NewWriter(workload.WriterConfig{DSN: w.cluster.DSN(), Nodes: w.cluster.PortNames(), Origin: w.began})
	w.watcher = workload.NewWatcher(w.began, w.cluster.Targets())
	ctx, stop := context.WithCancel(w.ctx)
	done := make(chan error, 2)
	go func() { done <- w.writer.Run(ctx) }()
	go func() { done <- w.watcher.Run(ctx) }()
	func() {
		defer func() {
			stop()
			for range 2 {
				if err := <-done; err != nil {
					w.Error(err)
				}
			}
		}()
		play()
	}()
	for _, o := range history.Overlaps(append(w.watcher.Spans(), w.writer.Spans()...)) {
		if o.Proven {
			w.Errorf("two primaries: %s", o)
		}
	}
}

func (w *onEtcd) gapSince(from time.Time) time.Duration {
	return w.writer.Log().LongestGap(from.Sub(w.began), time.Since(w.began)).Length()
}

// settled waits until all members stream, and returns the primary.
func (w *onEtcd) settled() *sandbox.Node {
	w.Helper()
	primary, err := w.cluster.AwaitStreaming(w.ctx)
	if err != nil {
		w.Fatal(err)
	}
	return primary
}

// loseEtcdServers kills etcd's leader, and freezes a server that doesn't lead: the primary
// stays. A frozen leader is another matter: thawed, it may revoke everybody's lease, see
// docs/GUARANTEES.md.
func (w *onEtcd) loseEtcdServers(primary *sandbox.Node) {
	w.Helper()
	for _, how := range []string{"killed", "frozen"} {
		victim, err := w.etcd.Leader(w.ctx)
		if err != nil {
			w.Fatal(err)
		}
		from := time.Now()
		if how == "killed" {
			w.etcd.Kill(victim)
		} else {
			victim = (victim + 1) % 3
			err = w.etcd.Signal(victim, syscall.SIGSTOP)
		}
		if err != nil {
			w.Fatal(err)
		}
		w.wait(2 * w.cluster.TTL())
		if how == "killed" {
			err = w.etcd.Run(victim)
		} else {
			err = w.etcd.Signal(victim, syscall.SIGCONT)
		}
		if err != nil {
			w.Fatal(err)
		}
		if now := w.settled(); now != primary {
			w.Errorf("a server of etcd was %s, and the leadership went from %s to %s", how, primary.Name(), now.Name())
		}
		w.Logf("a server of etcd was %s: the longest time without an acknowledged row was %v", how, w.gapSince(from))
	}
}

// wait lets time pass: leases are about nothing else.
func (w *onEtcd) wait(d time.Duration) {
	select {
	case <-time.After(d):
	case <-w.ctx.Done():
	}
}

func (w *onEtcd) switchOver(primary *sandbox.Node) {
	w.Helper()
	to := w.cluster.Nodes()[0]
	if to == primary {
		to = w.cluster.Nodes()[1]
	}
	from := time.Now()
	if answer, err := primary.Switchover(w.ctx, primary.Name(), to.Name()); err != nil {
		w.Fatalf("%v: %s", err, answer)
	}
	if now := w.settled(); now != to {
		w.Errorf("switched over to %s, %s leads", to.Name(), now.Name())
	}
	w.Logf("switchover: the longest time without an acknowledged row was %v", w.gapSince(from))
}

func (w *onEtcd) losePrimary() {
	w.Helper()
	primary := w.settled()
	from := time.Now()
	if err := primary.KillNode(); err != nil {
		w.Fatal(err)
	}
	for {
		now, err := w.cluster.AwaitPrimary(w.ctx)
		if err != nil {
			w.Fatal(err)
		}
		if now != primary {
			break
		}
	}
	w.Logf("the primary's host died: another leads after %v", time.Since(from))
	if err := primary.PowerOn(); err != nil {
		w.Fatal(err)
	}
	w.settled()
	w.Logf("the longest time without an acknowledged row was %v; all stream again", w.gapSince(from))
}
