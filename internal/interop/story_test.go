package interop

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgregent/regent/internal/sandbox"
)

// story is the life of one mixed cluster, act by act. Each act becomes a line of the table that
// `make interop` prints.
type story struct {
	*Cluster
	t      *testing.T
	ctx    context.Context
	layout string
	load   *Load
	note   string // on the result of the running act
}

// full: `make interop` plays everything, and wants the acts in this folder.
func full() (folder string) { return os.Getenv("REGENT_INTEROP_TABLE") }

const (
	p = sandbox.Patroni
	r = sandbox.Regent
)

// stories: who lives on what. All of them are `make interop`; go test plays the first of each
// store, in which each program is alone against two of the other once.
var stories = []struct {
	store   string
	members []sandbox.Program
	more    bool
}{
	{"etcd3", []sandbox.Program{p, r, r}, false},
	{"consul", []sandbox.Program{r, p, p}, false},
	{"etcd3", []sandbox.Program{r, p, p}, true},
	{"consul", []sandbox.Program{p, r, r}, true},
	{"etcd3", []sandbox.Program{r, r, p}, true},
	{"etcd3", []sandbox.Program{p, p, r}, true},
}

// A cluster of both programs works as one of either: whoever bootstraps, whoever leads, whichever
// program's command or API is used. Planned changes lose no row that was acknowledged.
func TestMixedCluster(t *testing.T) {
	for _, s := range stories {
		if s.more && full() == "" {
			continue
		}
		layout := lettersOf(s.members)
		t.Run(s.store+"-"+layout, func(t *testing.T) {
			t.Parallel()
			if testing.Short() {
				t.Skip("takes two minutes: real clusters are left out of -short")
			}
			c, ctx := newStory(t, s.store, s.members)
			w := &story{Cluster: c, t: t, ctx: ctx, layout: s.store + " " + layout}
			w.play()
		})
	}
}

// newStory lays out a cluster for as long as a story may take.
func newStory(t *testing.T, store string, members []sandbox.Program) (*Cluster, context.Context) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	t.Cleanup(cancel)
	return Start(t, Options{Store: store, Members: members}), ctx
}

// lettersOf names who lives in a cluster.
func lettersOf(members []sandbox.Program) (letters string) {
	for _, m := range members {
		letters += strings.ToUpper(string(m[:1]))
	}
	return letters
}

func (w *story) play() {
	w.bootstrap()
	w.load = w.Load(w.ctx)
	w.look()
	w.switchovers()
	w.configure()
	w.operate()
	w.pauses()
	figures, err := w.load.End(w.ctx)
	w.t.Logf("%s: %s", w.layout, figures)
	if err != nil {
		w.t.Error(err)
	}
	if figures.Lost != 0 {
		w.t.Errorf("planned changes lost %d acknowledged rows", figures.Lost)
	}
	w.lose(p)
	w.lose(r)
	w.sound()
}

// act does something, and writes down how it went.
func (w *story) act(what string, do func() error) {
	w.t.Helper()
	leader := "-"
	if n, err := w.Primary(w.ctx); err == nil {
		leader = fmt.Sprintf("%s (%s)", n.Program(), n.Name())
	}
	began := time.Now()
	err := do()
	result := "ok"
	if err != nil {
		result = err.Error()
	} else if w.note != "" {
		result += ", " + w.note
	}
	w.note = ""
	line := fmt.Sprintf("| %s | %s | %s | %s | %.1f s |", w.layout, leader, what, strings.ReplaceAll(result, "\n", " "), time.Since(began).Seconds())
	w.t.Log(line)
	if dir := full(); dir != "" {
		addTo(w.t, filepath.Join(dir, strings.ReplaceAll(w.layout, " ", "-")), line+"\n")
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// whole waits until one leads, says the store as well, and all others stream from it.
func (w *story) whole() (*sandbox.Node, error) {
	ctx, cancel := context.WithTimeout(w.ctx, time.Minute)
	defer cancel()
	for {
		n, err := w.AwaitStreaming(ctx)
		if err != nil {
			return nil, err
		}
		held := w.held(ctx, n)
		if held == nil {
			return n, nil
		}
		if !wait(ctx) {
			return nil, held
		}
	}
}

// held checks the keys of a cluster at rest: the leader key on its holder's one lease, nothing asked for.
func (w *story) held(ctx context.Context, leader *sandbox.Node) error {
	keys, err := w.Store.Keys(ctx)
	if err != nil {
		return err
	}
	leases := map[string]string{}
	for _, kv := range keys {
		switch kv.Key {
		case "leader":
			if kv.Value != leader.Name() {
				return fmt.Errorf("the leader key says %s, and %s is the primary", kv.Value, leader.Name())
			}
		case "failover":
			if kv.Value != "{}" {
				return fmt.Errorf("a request is left: %s", kv.Value)
			}
		}
		leases[kv.Key] = kv.Lease
	}
	if leases["leader"] == "" || leases["leader"] != leases["members/"+leader.Name()] {
		return fmt.Errorf("the leader key hangs on lease %q, its holder's member key on %q", leases["leader"], leases["members/"+leader.Name()])
	}
	return nil
}

func wait(ctx context.Context) bool {
	select {
	case <-time.After(50 * time.Millisecond):
		return true
	case <-ctx.Done():
		return false
	}
}

// leader is the primary of a cluster at rest.
func (w *story) leader() *sandbox.Node {
	w.t.Helper()
	n, err := w.whole()
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

// replica is one that runs the program.
func (w *story) replica(of sandbox.Program) *sandbox.Node {
	w.t.Helper()
	leader := w.leader()
	for _, n := range w.Nodes() {
		if n != leader && n.Program() == of {
			return n
		}
	}
	return nil
}

func (w *story) bootstrap() {
	first := w.Nodes()[0]
	w.act("bootstrap by "+string(first.Program()), func() error {
		if err := first.PowerOn(); err != nil {
			return err
		}
		_, err := w.AwaitPrimary(w.ctx)
		return err
	})
	w.act("the others join", func() error {
		if err := w.PowerOn(); err != nil {
			return err
		}
		_, err := w.whole()
		return err
	})
}

// tools are both programs' commands, by the file of a member of the other.
func (w *story) tools() []tool {
	return []tool{{"patronictl", w.Patronictl, w.member(r)}, {"regent", w.Regent, w.member(p)}}
}

// tool runs as an operator would on a host of the other program.
type tool struct {
	name string
	run  func(context.Context, *sandbox.Node, ...string) (string, error)
	at   *sandbox.Node
}

func (w *story) member(of sandbox.Program) *sandbox.Node {
	i := slices.IndexFunc(w.Nodes(), func(n *sandbox.Node) bool { return n.Program() == of })
	return w.Nodes()[i]
}

// use runs a command whose output must contain texts.
func (w *story) use(t tool, wants []string, args ...string) error {
	out, err := t.run(w.ctx, t.at, args...)
	for _, want := range wants {
		if err == nil && !strings.Contains(out, want) {
			err = fmt.Errorf("%s %v says no %q: %s", t.name, args, want, out)
		}
	}
	return err
}

func (w *story) look() {
	for _, t := range w.tools() {
		w.act("list, topology, show-config, history, version, dsn by "+t.name, func() error {
			all := []string{"Leader", "n1", "n2", "n3", "running"}
			return errors.Join(w.use(t, all, "list"), w.use(t, all, "topology"), w.use(t, []string{"ttl: 20"}, "show-config"),
				w.use(t, []string{"New Leader"}, "history"), w.use(t, []string{"host=127.0.0.1 port="}, "dsn", "demo"),
				w.use(t, []string{"n1: Patroni ", "n2: Patroni ", "n3: Patroni ", "PostgreSQL 15."}, "version", "demo"))
		})
	}
}

// switchovers change the program that leads six times: by each command, and by the API of
// members of each program.
func (w *story) switchovers() {
	for _, t := range w.tools() {
		w.switchTo(t.name, func(from, to *sandbox.Node) error {
			return w.use(t, []string{`Successfully switched over to "` + to.Name() + `"`},
				"switchover", "demo", "--leader", from.Name(), "--candidate", to.Name(), "--force")
		})
	}
	for _, t := range w.tools() {
		w.moveTo("failover", t.name, func(from, to *sandbox.Node) error {
			// Patroni 3.0's command names the leader, which makes a switchover of it for later versions.
			return w.use(t, []string{"Successfully ", ` over to "` + to.Name() + `"`}, "failover", "demo", "--candidate", to.Name(), "--force")
		})
	}
	for _, program := range []sandbox.Program{p, r} {
		w.switchTo("the API of "+string(program), func(from, to *sandbox.Node) error {
			_, err := w.member(program).Switchover(w.ctx, from.Name(), to.Name())
			return err
		})
	}
}

func (w *story) switchTo(by string, ask func(from, to *sandbox.Node) error) {
	w.t.Helper()
	w.moveTo("switchover", by, ask)
}

func (w *story) moveTo(how, by string, ask func(from, to *sandbox.Node) error) {
	w.t.Helper()
	from := w.leader()
	to := w.replica(other(from.Program()))
	w.act(fmt.Sprintf("%s to %s by %s", how, to.Program(), by), func() error {
		if err := ask(from, to); err != nil {
			return err
		}
		now, err := w.whole()
		if err == nil && now != to {
			err = fmt.Errorf("%s leads, not %s", now.Name(), to.Name())
		}
		return err
	})
}

func other(of sandbox.Program) sandbox.Program {
	if of == p {
		return r
	}
	return p
}

// configure changes the configuration by each command; all members take it, and nobody drops what
// it doesn't know.
func (w *story) configure() {
	for i, t := range w.tools() {
		value := fmt.Sprintf("%dMB", 5+i)
		w.act("edit-config by "+t.name, func() error {
			err := w.use(t, nil, "edit-config", "demo", "--force", "--quiet", "-p", "work_mem="+value, "-s", "owner."+t.name+"=1")
			for _, n := range w.Nodes() {
				if err == nil {
					err = n.AwaitSetting(w.ctx, "work_mem", value)
				}
			}
			return err
		})
	}
	_, err := w.AwaitKeys(w.ctx, has("config", `"patronictl"`, `"regent"`))
	if err != nil {
		w.t.Error(err)
	}
}

// operate has each program's command reload, restart and reinitialize a member of the other.
func (w *story) operate() {
	for _, t := range w.tools() {
		n := w.replica(t.at.Program())
		if n == nil { // the only one of its program leads
			w.switchTo("the API of "+string(t.at.Program()), func(from, to *sandbox.Node) error {
				_, err := from.Switchover(w.ctx, from.Name(), to.Name())
				return err
			})
			n = w.replica(t.at.Program())
		}
		whose := fmt.Sprintf("%s's by %s", n.Program(), t.name)
		w.act("reload "+whose, func() error {
			addTo(w.t, n.ConfigFile(), "\ntags:\n  site: north\n")
			err := w.use(t, nil, "reload", "demo", n.Name(), "--force")
			if err == nil {
				_, err = w.AwaitKeys(w.ctx, has("members/"+n.Name(), `"tags":{"site":"north"}`))
			}
			return err
		})
		w.act("restart "+whose, func() error {
			before, _ := n.PostmasterPID()
			if err := w.use(t, []string{"Success: restart"}, "restart", "demo", n.Name(), "--force"); err != nil {
				return err
			}
			if now, _ := n.PostmasterPID(); now == before {
				return fmt.Errorf("postmaster %d still runs", now)
			}
			_, err := w.whole()
			return err
		})
		w.act("reinit "+whose, func() error { return w.reinit(t, n) })
		leader := w.leader()
		w.act("restart of the leader by "+t.name, func() error {
			if err := w.use(t, []string{"Success: restart"}, "restart", "demo", leader.Name(), "--force"); err != nil {
				return err
			}
			now, err := w.whole()
			if err == nil && now != leader {
				err = fmt.Errorf("%s leads, not %s", now.Name(), leader.Name())
			}
			return err
		})
	}
}

// reinit copies a member anew: what lay in its folder is gone.
func (w *story) reinit(t tool, n *sandbox.Node) error {
	mark := filepath.Join(n.DataDir(), "mark")
	if err := os.WriteFile(mark, nil, 0o600); err != nil {
		return err
	}
	if err := w.use(t, []string{"Success: reinitialize"}, "reinit", "demo", n.Name(), "--force"); err != nil {
		return err
	}
	for {
		_, err := os.Stat(mark)
		if errors.Is(err, os.ErrNotExist) {
			_, err = w.whole()
			return err
		}
		if !wait(w.ctx) {
			return errors.New("its data was not replaced")
		}
	}
}

// pauses: each command's maintenance mode reaches the members of both programs, and ends by the other's.
func (w *story) pauses() {
	tools := w.tools()
	for i, t := range tools {
		end := tools[1-i]
		w.act(fmt.Sprintf("pause by %s, resume by %s", t.name, end.name), func() error {
			err := w.use(t, []string{"Success: cluster management is paused"}, "pause", "demo", "--wait")
			for _, n := range w.Nodes() {
				err = errors.Join(err, n.AwaitPause(w.ctx, true))
			}
			if err == nil {
				err = w.use(end, []string{"Success: cluster management is resumed"}, "resume", "demo", "--wait")
			}
			for _, n := range w.Nodes() {
				err = errors.Join(err, n.AwaitPause(w.ctx, false))
			}
			if err == nil {
				_, err = w.whole()
			}
			return err
		})
	}
}
