package stores

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgregent/regent/dcs/etcd3/etcdtest"
	"github.com/pgregent/regent/internal/sandbox"
	"github.com/pgregent/regent/pgmgr/pgtest"
)

// The store is away for several ttl, and failsafe mode is on: the primary accepts every write,
// because all members vouch for it, and leads on when the store is back, whose leases have ended.
// Without one of them it is stopped before its deadline, and without the mode as well. Nobody ever
// sees two primaries.
func TestFailsafeModeOnEtcd(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute or two: real clusters are left out of -short")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if _, err := etcdtest.Find(etcdtest.V36); err != nil { // else it is in this user's reach
		t.Setenv(etcdtest.V36.Variable(), filepath.Join(filepath.Dir(pgtest.Binary(t, "regent")), "etcd"))
	}
	etcd := etcdtest.Start(t, etcdtest.Options{Version: etcdtest.V36, Servers: 1})
	w := failsafeCluster(t, ctx, 3, fmt.Sprintf("etcd3:\n  hosts: ['%s']\n", strings.Join(etcd.URLs(), "', '")), nil)
	w.silence = func() error { return etcd.Signal(0, syscall.SIGSTOP) }
	w.speak = func() error { return etcd.Signal(0, syscall.SIGCONT) }
	w.play()
}

// The same on the embedded store, most of whose voters stand still. They are witnesses: a
// member whose agent is gone can't vouch for anybody.
func TestFailsafeModeWithoutTheMajorityOfTheEmbeddedStore(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute or two: real clusters are left out of -short")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	var addrs []string
	for range 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addrs = append(addrs, l.Addr().String())
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	w := failsafeCluster(t, ctx, 2, "", addrs)
	signal := func(sig syscall.Signal) func() error {
		return func() error {
			for _, p := range w.witnesses {
				if err := p.Signal(sig); err != nil {
					return err
				}
			}
			return nil
		}
	}
	w.silence, w.speak = signal(syscall.SIGSTOP), signal(syscall.SIGCONT)
	w.play()
}

// failsafeTrial is a cluster in failsafe mode, whose store can be silenced.
type failsafeTrial struct {
	onEtcd
	silence, speak func() error
	witnesses      []*os.Process
}

// failsafeCluster starts the members, and witnesses at those addresses.
func failsafeCluster(t *testing.T, ctx context.Context, nodes int, store string, witnesses []string) *failsafeTrial {
	t.Helper()
	w := &failsafeTrial{onEtcd: onEtcd{T: t, ctx: ctx, began: time.Now()}}
	var err error
	w.cluster, err = sandbox.New(sandbox.Options{
		Dir: filepath.Join(pgtest.SocketDir(t), "c"), Bin: filepath.Dir(pgtest.Binary(t, "regent")), PGBin: pgtest.BinDir(t),
		Nodes: nodes, Store: store, TTL: 8 * time.Second, LoopWait: time.Second, RetryTimeout: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, n := range w.cluster.Nodes() {
				t.Logf("%s said:\n%s", n.Name(), n.Tail(80))
			}
		}
		if err := w.cluster.Close(); err != nil {
			t.Error(err)
		}
	})
	for i, addr := range witnesses {
		w.witness(fmt.Sprint("w", i+1), addr, witnesses)
	}
	if err := w.cluster.PowerOn(); err != nil {
		t.Fatal(err)
	}
	return w
}

// witness starts a voter without PostgreSQL, and tells the members of it.
func (w *failsafeTrial) witness(name, addr string, all []string) {
	w.Helper()
	ofAll := func(section string) string { // the members' section names each other
		return strings.Replace(section, "]", ", "+strings.Join(all, ", ")+"]", 1)
	}
	var partners []string
	var password string
	for _, n := range w.cluster.Nodes() {
		section := n.RaftSection()
		if err := n.NameStores(ofAll(section), ""); err != nil {
			w.Fatal(err)
		}
		_, self, _ := strings.Cut(section, "self_addr: ")
		self, _, _ = strings.Cut(self, "\n")
		partners = append(partners, self)
		_, password, _ = strings.Cut(section, "password: ")
	}
	for _, other := range all {
		if other != addr {
			partners = append(partners, other)
		}
	}
	dir := w.TempDir()
	file := filepath.Join(dir, "witness.yml")
	text := fmt.Sprintf("scope: demo\nname: %s\nraft:\n  self_addr: %s\n  partner_addrs: [%s]\n  data_dir: %s/raft\n  password: %s",
		name, addr, strings.Join(partners, ", "), dir, password)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		w.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		w.Fatal(err)
	}
	cmd := exec.Command(pgtest.Binary(w.T, "regent"), "witness", file)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		w.Fatal(err)
	}
	w.witnesses = append(w.witnesses, cmd.Process)
	w.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
		_ = log.Close()
		if text, err := os.ReadFile(log.Name()); w.Failed() && err == nil {
			w.Logf("%s said:\n%s", name, text)
		}
	})
}

func (w *failsafeTrial) play() {
	primary := w.settled()
	w.Logf("%.1f s: a primary, and all others stream", time.Since(w.began).Seconds())
	w.mode(primary, true)
	w.underLoad(func() {
		w.goesOn(primary)
		w.stopsWithoutAMember(w.settled())
		w.mode(w.settled(), false)
		w.stopsWithoutTheMode(w.settled())
	})
}

// mode switches failsafe mode, and waits until every member shows the key that follows from it.
func (w *failsafeTrial) mode(primary *sandbox.Node, on bool) {
	w.Helper()
	if err := primary.PatchConfig(w.ctx, fmt.Sprintf(`{"failsafe_mode":%v}`, on)); err != nil {
		w.Fatal(err)
	}
	want := 0
	if on {
		want = len(w.cluster.Nodes())
	}
	for _, n := range w.cluster.Nodes() {
		w.until(fmt.Sprintf("%s to show that failsafe mode is %v", n.Name(), on), func() bool { return len(w.failsafeKey(n)) == want })
	}
}

func (w *failsafeTrial) failsafeKey(n *sandbox.Node) map[string]string {
	req, err := http.NewRequestWithContext(w.ctx, http.MethodGet, n.RESTURL()+"/failsafe", nil)
	if err != nil {
		w.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil
	}
	defer func() { _ = resp.Body.Close() }()
	var key map[string]string
	if resp.StatusCode != http.StatusOK || json.NewDecoder(resp.Body).Decode(&key) != nil {
		return nil
	}
	return key
}

func (w *failsafeTrial) until(what string, holds func() bool) {
	w.Helper()
	for !holds() {
		if w.wait(50 * time.Millisecond); w.ctx.Err() != nil {
			w.Fatalf("wait for %s: %v", what, w.ctx.Err())
		}
	}
}

func (w *failsafeTrial) active(n *sandbox.Node) bool {
	samples, err := n.Metrics(w.ctx)
	if err != nil {
		return false
	}
	for _, s := range samples {
		if s.Name == "patroni_failsafe_mode_is_active" {
			return s.Value == 1
		}
	}
	return false
}

func (w *failsafeTrial) do(f func() error) {
	w.Helper()
	if err := f(); err != nil {
		w.Fatal(err)
	}
}

// goesOn: three ttl without the store cost no write, although a replica's agent is killed and
// started again meanwhile.
func (w *failsafeTrial) goesOn(primary *sandbox.Node) {
	w.Helper()
	if err := w.writer.Await(w.ctx, 1, 0); err != nil {
		w.Fatal(err)
	}
	from := time.Now()
	w.do(w.silence)
	for _, n := range w.cluster.Nodes() {
		w.until("failsafe mode at work in "+n.Name(), func() bool { return w.active(n) })
	}
	w.Logf("%.1f s after the store fell silent, all members say that failsafe mode is at work", time.Since(from).Seconds())
	// An agent that starts without the store vouches all the same: its journal knows of the mode.
	if err := w.another(primary).KillAgent(); err != nil {
		w.Fatal(err)
	}
	w.wait(time.Until(from.Add(3 * w.cluster.TTL())))
	if !w.active(primary) {
		w.Errorf("after three ttl failsafe mode isn't at work in %s", primary.Name())
	}
	w.do(w.speak)
	w.until("the store to confirm the lease", func() bool { return w.leadsByTheStore(primary) })
	if now := w.settled(); now != primary {
		w.Errorf("the leadership went from %s to %s", primary.Name(), now.Name())
	}
	// A demotion and its end take far longer than any write on a busy machine.
	if gap := w.gapSince(from); gap > w.cluster.TTL()/2 {
		w.Errorf("for %v no write was acknowledged", gap)
	} else {
		w.Logf("%v without the store: the longest time without an acknowledged row was %v", 3*w.cluster.TTL(), gap)
	}
}

// leadsByTheStore: the status line is that of a holder whose lease is confirmed.
func (w *failsafeTrial) leadsByTheStore(n *sandbox.Node) bool {
	req, err := http.NewRequestWithContext(w.ctx, http.MethodGet, n.RESTURL()+"/patroni", nil)
	if err != nil {
		w.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer func() { _ = resp.Body.Close() }()
	var says struct {
		Regent struct {
			Status string `json:"status"`
		} `json:"regent"`
	}
	return json.NewDecoder(resp.Body).Decode(&says) == nil && strings.Contains(says.Regent.Status, "the leader with the lock")
}

// another is a member that isn't the primary.
func (w *failsafeTrial) another(primary *sandbox.Node) *sandbox.Node {
	if n := w.cluster.Nodes()[0]; n != primary {
		return n
	}
	return w.cluster.Nodes()[1]
}

// stopsWithoutAMember: one that vouched is gone, so the promises end.
func (w *failsafeTrial) stopsWithoutAMember(primary *sandbox.Node) {
	w.Helper()
	other := w.another(primary)
	w.do(w.silence)
	w.until("failsafe mode at work", func() bool { return w.active(primary) })
	other.PowerOff()
	if err := other.KillAgent(); err != nil {
		w.Fatal(err)
	}
	w.stops(primary, "the agent of "+other.Name()+" was killed", 0)
	w.do(w.speak)
	if err := other.PowerOn(); err != nil {
		w.Fatal(err)
	}
	w.settled()
}

func (w *failsafeTrial) stopsWithoutTheMode(primary *sandbox.Node) {
	w.Helper()
	w.do(w.silence)
	// A renewal is at most a quarter of the belief old, and a tenth of the ttl is for the stop.
	w.stops(primary, "the store fell silent, with failsafe mode off", w.cluster.TTL()/2)
	w.do(w.speak)
	w.settled()
}

// stops: the primary's server is stopped within a ttl, and not before its lease can have ended.
func (w *failsafeTrial) stops(primary *sandbox.Node, since string, least time.Duration) {
	w.Helper()
	from := time.Now()
	pid, ok := primary.PostmasterPID()
	if !ok {
		w.Fatalf("%s has no server", primary.Name())
	}
	w.until("the primary to be stopped", func() bool { now, runs := primary.PostmasterPID(); return !runs || now != pid })
	if took := time.Since(from); took < least || took > w.cluster.TTL()+time.Second {
		w.Errorf("%s, and %s was stopped %v later", since, primary.Name(), took)
	} else {
		w.Logf("%s: %s was stopped %v later", since, primary.Name(), took)
	}
}
