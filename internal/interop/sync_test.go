package interop

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pgregent/regent/internal/sandbox"
	"github.com/pgregent/regent/internal/sandbox/history"
)

// syncStory is the life of a mixed cluster in synchronous mode. n1 and n2 are of different
// programs, and take turns as primary and as its synchronous standby; n3, which is tagged nosync,
// streams as well as they do and must never lead.
type syncStory struct{ *story }

// In synchronous mode each program understands what the other has written into /sync: who leads
// makes the other one its synchronous standby, planned changes go to that one by either command,
// and when the primary's host is killed under a writer that one and nobody else takes over. No
// row that was acknowledged is lost. `make interop` plays all of them, go test the first, in short.
func TestSynchronousModeInMixedClusters(t *testing.T) {
	for i, s := range []struct {
		store   string
		members []sandbox.Program
	}{
		{"etcd3", []sandbox.Program{p, r, r}},
		{"etcd3", []sandbox.Program{r, p, p}},
		{"consul", []sandbox.Program{r, p, p}},
		{"consul", []sandbox.Program{p, r, r}},
	} {
		if i > 0 && full() == "" {
			continue
		}
		layout := lettersOf(s.members) + " sync"
		t.Run(s.store+"-"+strings.ReplaceAll(layout, " ", "-"), func(t *testing.T) {
			t.Parallel()
			if testing.Short() {
				t.Skip("takes a minute: real clusters are left out of -short")
			}
			c, ctx := newStory(t, s.store, s.members)
			addTo(t, c.Nodes()[2].ConfigFile(), "\ntags:\n  nosync: true\n")
			w := syncStory{&story{Cluster: c, t: t, ctx: ctx, layout: s.store + " " + layout}}
			w.play()
		})
	}
}

func (w syncStory) play() {
	w.bootstrap()
	tools := w.tools()
	w.act("synchronous mode on, by "+tools[1].name, func() error {
		if err := w.use(tools[1], nil, "edit-config", "demo", "--force", "--quiet", "-s", "synchronous_mode=true"); err != nil {
			return err
		}
		return w.paired()
	})
	w.load = w.Load(w.ctx)
	if err := w.load.Await(w.ctx, 100, w.load.Now()); err != nil {
		w.t.Fatal(err)
	}
	w.refused(tools)
	if full() == "" {
		w.exchange(tools[0])
		w.kill()
	} else {
		for _, t := range tools { // each command, each way
			w.exchange(t)
			w.exchange(t)
		}
		w.kill()
		w.kill()
		w.off(tools[0])
	}
	figures, err := w.load.End(w.ctx)
	w.t.Logf("%s: %s", w.layout, figures)
	if err != nil {
		w.t.Error(err)
	}
	if figures.Lost != 0 {
		w.t.Errorf("%d acknowledged rows are lost", figures.Lost)
	}
	w.sound()
}

// pair are the present leader, and who shall be its synchronous standby.
func (w syncStory) pair() (leader, standby *sandbox.Node) {
	w.t.Helper()
	leader = w.leader()
	switch nodes := w.Nodes(); leader {
	case nodes[0]:
		return leader, nodes[1]
	case nodes[1]:
		return leader, nodes[0]
	}
	w.t.Fatalf("%s leads, which no synchronous standby was", leader.Name())
	return nil, nil
}

// paired waits until the leader has the other program's member as its synchronous standby: in
// the bytes that its program writes, and in what both programs' commands read in them.
func (w syncStory) paired() error {
	leader, standby := w.pair()
	want := fmt.Sprintf(`{"leader":"%s","sync_standby":"%s"}`, leader.Name(), standby.Name())
	if leader.Program() == r {
		want = fmt.Sprintf(`{"leader":"%s","quorum":0,"sync_standby":"%s"}`, leader.Name(), standby.Name())
	}
	_, err := w.AwaitKeys(w.ctx, func(keys map[string]string) error {
		if keys["sync"] != want {
			return fmt.Errorf("/sync is %s, not %s", keys["sync"], want)
		}
		return nil
	})
	for _, t := range w.tools() {
		err = errors.Join(err, w.listed(t, standby))
	}
	w.note = fmt.Sprintf("%s's synchronous standby is %s (%s)", leader.Program(), standby.Program(), standby.Name())
	return err
}

// listed: a command shows this member, and no other, as the synchronous standby.
func (w syncStory) listed(t tool, standby *sandbox.Node) error {
	out, err := t.run(w.ctx, t.at, "list", "demo", "--format", "json")
	var members []struct{ Member, Role string }
	if err == nil {
		err = json.Unmarshal([]byte(out), &members)
	}
	if err != nil || len(members) != len(w.Nodes()) {
		return fmt.Errorf("list by %s: %w: %s", t.name, err, out)
	}
	for _, m := range members {
		if (m.Role == "Sync Standby") != (m.Member == standby.Name()) {
			err = errors.Join(err, fmt.Errorf("%s lists %s as %s", t.name, m.Member, m.Role))
		}
	}
	return err
}

// refused: no switchover goes to a member that isn't the synchronous standby.
func (w syncStory) refused(tools []tool) {
	leader, async := w.leader(), w.Nodes()[2]
	for _, t := range tools {
		w.act("switchover to the asynchronous member by "+t.name, func() error {
			out, _ := t.run(w.ctx, t.at, "switchover", "demo", "--leader", leader.Name(), "--candidate", async.Name(), "--force")
			const reason = "candidate name does not match with sync_standby"
			if strings.Contains(out, "Successfully") || !strings.Contains(out, reason) {
				return fmt.Errorf("it was not refused with %q: %s", reason, out)
			}
			if now := w.leader(); now != leader {
				return fmt.Errorf("%s leads", now.Name())
			}
			w.note = "refused"
			return nil
		})
	}
}

// exchange switches over to the synchronous standby, and has the former primary become one.
func (w syncStory) exchange(t tool) {
	w.t.Helper()
	from, to := w.pair()
	w.act(fmt.Sprintf("switchover to the synchronous standby (%s) by %s", to.Program(), t.name), func() error {
		err := w.use(t, []string{`Successfully switched over to "` + to.Name() + `"`},
			"switchover", "demo", "--leader", from.Name(), "--candidate", to.Name(), "--force")
		if err != nil {
			return err
		}
		if now := w.leader(); now != to {
			return fmt.Errorf("%s leads, not %s", now.Name(), to.Name())
		}
		return w.paired()
	})
}

// kill ends the primary's host in the middle of commits. Its synchronous standby takes over, n3
// doesn't; the host comes back and is the new primary's synchronous standby.
func (w syncStory) kill() {
	w.t.Helper()
	old, heir := w.pair()
	from := w.load.Now()
	w.act(fmt.Sprintf("SIGKILL of the primary's host (%s), %s is synchronous", old.Program(), heir.Program()), func() error {
		if err := w.load.Await(w.ctx, 100, from); err != nil { // not all of them waited for somebody before
			return err
		}
		from = w.load.Now()
		if err := old.KillNode(); err != nil {
			return err
		}
		if err := w.load.Await(w.ctx, 100, from+time.Second); err != nil {
			return err
		}
		w.note = fmt.Sprintf("%s (%s) took over", heir.Program(), heir.Name())
		return w.onlyLed(from, heir, old)
	})
	w.act(fmt.Sprintf("%s rejoins and is synchronous", old.Program()), func() error {
		if err := old.PowerOn(); err != nil {
			return err
		}
		if now := w.leader(); now != heir {
			return fmt.Errorf("%s leads", now.Name())
		}
		return w.paired()
	})
}

// onlyLed: since that moment nobody but these was a primary, and the first of them is one.
func (w syncStory) onlyLed(since time.Duration, heir, old *sandbox.Node) error {
	var led []string
	for _, s := range append(w.load.Watcher.Spans(), w.load.Spans()...) {
		if s.Role == history.Primary && s.LastAnswered > since && s.Node != old.Name() {
			led = append(led, s.Node)
			if s.Node != heir.Name() {
				return fmt.Errorf("%s led: %s", s.Node, s)
			}
		}
	}
	if len(led) == 0 {
		return fmt.Errorf("nobody saw %s lead", heir.Name())
	}
	return nil
}

// off: the key goes, and no commit waits any more.
func (w syncStory) off(t tool) {
	w.act("synchronous mode off, by "+t.name, func() error {
		err := w.use(t, nil, "edit-config", "demo", "--force", "--quiet", "-s", "synchronous_mode=null")
		if err == nil {
			_, err = w.AwaitKeys(w.ctx, func(keys map[string]string) error {
				if value, ok := keys["sync"]; ok {
					return fmt.Errorf("/sync is %s", value)
				}
				return nil
			})
		}
		if err == nil {
			err = w.leader().AwaitSetting(w.ctx, "synchronous_standby_names", "")
		}
		return err
	})
}
