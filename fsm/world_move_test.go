package fsm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/dcs/mem"
	"github.com/pgregent/regent/events"
)

// Worlds with two stores, between which the cluster is moved. Each member's file names the
// first one for ever; what it has learnt of moves is remembered beside it.

// home is the store that this run works on, target the other one.
func (n *node) home() *mem.Cluster   { return n.w.stores[n.at] }
func (n *node) target() *mem.Cluster { return n.w.stores[1-n.at] }

// connect opens the store that this member takes to decide.
func (n *node) connect() {
	n.client, n.watch = n.home().Client(string(n.name)), n.home().Client("watch-"+string(n.name))
	n.other = n.target().Client(string(n.name))
}

// changeStore is what the shell does: the next run works on the target.
func (n *node) changeStore(a ChangeStore) {
	n.w.note("%s changes to store %d", n.name, 1-n.at)
	n.base += n.s.Newest()
	n.up, n.at, n.arrived = false, 1-n.at, a.Epoch
	n.run++
	n.connect()
	n.w.after(n.w.between(5*time.Millisecond, 200*time.Millisecond), n.start)
}

// rebased is a fence as the keeper gets it.
func (n *node) rebased(f Fence) Fence {
	f.Revision += n.base
	if f.Config != 0 {
		f.Config += n.base
	}
	return f
}

// executeMove carries out a part of a move; false: the action is none.
func (n *node) executeMove(o Ordered, sent events.Instant, way time.Duration) bool {
	class, r, why := events.Done, events.Result{}, ""
	end := func(err error) {
		if class = dcs.ClassOf(err); err != nil {
			why = err.Error()
		}
	}
	ctx := context.Background()
	switch a := o.Action.(type) {
	case OpenTarget:
		v, err := n.other.View(ctx, dcs.Linearizable)
		m := dcs.Decode(v).Move
		r.Held = m.Is(events.MoveSettled) && m.Epoch == a.Epoch
		end(err)
	case GrantTarget:
		l, err := n.other.Grant(ctx, events.LeaseID(fmt.Sprintf("%s-t%d", n.name, n.w.pick(1e9))), a.TTL)
		r = events.Result{Lease: l.ID, TTL: l.TTL, SentAt: sent}
		end(err)
	case RenewTarget:
		l, err := n.other.Renew(ctx, a.Lease)
		r = events.Result{Lease: a.Lease, TTL: l.TTL, SentAt: sent, Held: slices.Contains(l.Keys, dcs.KeyLeader)}
		end(err)
	case CopyTarget:
		rev, err := n.copyTarget(ctx, a)
		r.Revision = rev
		end(err)
	case AcquireTarget:
		_, err := n.other.Commit(ctx, dcs.Txn{
			Guards: []dcs.Guard{{Key: dcs.KeyLeader, Absent: true}, {Key: dcs.KeyConfig, Version: a.Config}},
			Writes: []dcs.Write{{Key: dcs.KeyLeader, Value: []byte(n.name), Lease: a.Lease}},
		})
		end(err)
	default:
		return false
	}
	n.later(way, func() {
		n.take(events.ActionFinished{ID: o.ID, Action: o.Action.Kind(), Class: class, Why: why, Result: r})
	})
	return true
}

func (n *node) copyTarget(ctx context.Context, a CopyTarget) (events.Revision, error) {
	from, err := n.client.View(ctx, dcs.Linearizable)
	if err != nil {
		return 0, err
	}
	if v := dcs.Decode(from); v.Config.Stored() != a.Config || v.Sync.Version != a.Sync {
		return 0, fmt.Errorf("%w: changed meanwhile", dcs.ErrRefused)
	}
	to, err := n.other.View(ctx, dcs.Linearizable)
	if err != nil {
		return 0, err
	}
	t, err := dcs.CopyMove(from, to, a.Epoch)
	if err != nil {
		return 0, err
	}
	rev, err := n.other.Commit(ctx, t)
	if err != nil {
		return 0, err
	}
	if _, err := n.other.Commit(ctx, dcs.CopyRest(from, rev)); err != nil {
		return 0, err
	}
	return rev, nil
}

// markMove is the transaction of the actions that change what the config key says.
func (n *node) markMove(action Action) (dcs.Txn, bool) {
	v := n.s.Store.View
	m := events.StoreMove{}
	if v.Move != nil {
		m = *v.Move
	}
	mine := func(t dcs.Txn, at events.Revision, lease events.LeaseID) (dcs.Txn, bool) {
		g := dcs.ValueIs(dcs.KeyLeader, string(n.name))
		g.Lease = lease
		t.Guards[0].Version = at
		t.Guards = append(t.Guards, g)
		return t, true
	}
	switch a := action.(type) {
	case ClaimMove:
		m.By, m.Run = n.name, n.s.Run
		return mine(dcs.MarkMove(v.Config, &m), a.Config, a.Lease)
	case SwitchStore:
		m.Phase = events.MoveTarget
		t, ok := mine(dcs.MarkMove(v.Config, &m), a.Config, a.Lease)
		t.Guards = append(t.Guards, dcs.Guard{Key: dcs.KeySync, Absent: a.Sync == 0, Version: a.Sync})
		return t, ok
	case WithdrawMove:
		t := dcs.MarkMove(v.Config, nil)
		t.Guards[0].Version = a.Config
		t.Guards = append(t.Guards, dcs.Guard{Key: dcs.KeyLeader, Absent: true})
		return t, true
	case SettleMove:
		m.Phase = events.MoveSettled
		t := dcs.MarkMove(v.Config, &m)
		t.Guards[0].Version = a.Config
		return t, true
	default:
		return dcs.Txn{}, false
	}
}

// deciding is the store that decides, by what is written; -1: neither says so.
func (w *world) deciding() int {
	for i, s := range w.stores {
		v, ok := w.view(s.Client("judge"))
		if !ok {
			continue
		}
		if m := v.Move; v.Initialize.SystemID.Valid() && (m == nil || m.Is(events.MoveSettled) || m.Is(events.MoveBoth)) {
			return i
		}
	}
	return -1
}

// command is the operator's command: it writes the tombstone, unless one stands.
func (w *world) command() {
	i := w.deciding()
	if i < 0 {
		return
	}
	operator := w.stores[i].Client("operator")
	defer func() { _ = operator.Close() }()
	v, ok := w.view(operator)
	if !ok || v.Move.Is(events.MoveBoth) {
		return
	}
	w.moves++
	m := events.StoreMove{Epoch: fmt.Sprint("e", w.moves), Phase: events.MoveBoth, To: "the other one"}
	for _, n := range w.nodes {
		m.Members = append(m.Members, n.name)
	}
	if _, err := operator.Commit(context.Background(), dcs.MarkMove(v.Config, &m)); err != nil && !errors.Is(err, dcs.ErrRefused) {
		w.fail("write the tombstone: %v", err)
	}
	w.note("the command writes %s into store %d", m.Epoch, i)
}

// abort is the command's other form.
func (w *world) abort() {
	i := w.deciding()
	if i < 0 {
		return
	}
	operator := w.stores[i].Client("operator")
	defer func() { _ = operator.Close() }()
	if v, ok := w.view(operator); ok && v.Move.Is(events.MoveBoth) {
		_, err := operator.Commit(context.Background(), dcs.MarkMove(v.Config, nil))
		w.note("the move is given up: %v", err)
	}
}

// arrivedAt: all members work on that store, and are healthy.
func (w *world) arrivedAt(i int) bool {
	for _, n := range w.nodes {
		if n.at != i {
			return false
		}
	}
	return w.healthy() && w.deciding() == i
}

// In peace a move there and back costs not one write.
func TestAMoveCostsNoWrite(t *testing.T) {
	for seed := range 4 {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t, uint64(seed), 1+seed%4, args{})
			w.calm = true
			if !w.run(20*time.Second, w.healthy) {
				w.fail("no healthy cluster")
			}
			for trip := range 3 {
				to := 1 - trip%2
				w.command()
				if !w.run(20*time.Second, func() bool {
					if w.primary() == nil {
						w.fail("nobody accepts writes")
					}
					return w.arrivedAt(to)
				}) {
					w.fail("the cluster has not arrived")
				}
				if len(w.nodes) > 1 {
					w.change("switchover", 600*time.Millisecond, true, func(old *node) {
						old.take(events.SwitchoverRequested{ID: "s", From: old.name})
					})
				}
			}
		})
	}
}

// Before the switch the target may be silent for as long as it likes: nobody is demoted, and
// the move goes on when it answers again.
func TestASilentTargetCostsNoWrite(t *testing.T) {
	w := newWorld(t, 7, 3, args{})
	w.calm = true
	if !w.run(20*time.Second, w.healthy) {
		w.fail("no healthy cluster")
	}
	w.command()
	p := w.primary()
	if !w.run(10*time.Second, func() bool { return p.s.Move.Leads }) {
		w.fail("the holder doesn't lead in the target")
	}
	for _, n := range w.nodes {
		w.stores[1].Cut(string(n.name), true)
	}
	w.stores[0].Inject(mem.Fault{Client: string(p.name), Op: mem.OpCommit, Key: dcs.KeyConfig, Kind: mem.Refuse, Times: 20})
	w.run(20*time.Second, func() bool {
		if w.primary() != p {
			w.fail("the primary was demoted because of the target")
		}
		return false
	})
	w.peace()
	if !w.run(20*time.Second, func() bool { return w.primary() == p && w.arrivedAt(1) }) {
		w.fail("the move did not go on")
	}
}

// Moves in trouble: at no time two members accept writes, and when peace comes the command,
// given again, brings everybody to the target.
func TestMovesSurvive(t *testing.T) {
	seeds := 16
	if testing.Short() {
		seeds = 4
	}
	for _, seed := range chosenSeeds(t, seeds) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t, uint64(5000+seed), 2+seed%2, args{})
			w.twoStores = true
			if !w.run(30*time.Second, w.healthy) {
				w.fail("no healthy cluster within 30 s of the start")
			}
			for range 8 + w.pick(8) {
				w.command()
				w.run(w.between(0, 300*time.Millisecond), nil)
				w.moveTrouble()
				w.run(w.between(0, 2*time.Second), nil)
			}
			w.peace()
			w.abort()
			if !w.run(time.Minute, func() bool { return w.healthy() && w.deciding() >= 0 && w.arrivedAt(w.deciding()) }) {
				w.fail("no healthy cluster within a minute of peace")
			}
			to := 1 - w.deciding()
			for range 10 {
				w.command()
				if w.run(10*time.Second, func() bool { return w.arrivedAt(to) }) {
					return
				}
			}
			w.fail("the cluster has not arrived")
		})
	}
}

// moveTrouble is what goes wrong with two stores, besides what goes wrong with one.
func (w *world) moveTrouble() {
	n := w.nodes[w.pick(len(w.nodes))]
	if p := w.primary(); p != nil && w.pick(2) == 0 {
		n = p
	}
	switch w.pick(8) {
	case 0, 1:
		store := w.pick(2)
		w.note("store %d is silent", store)
		for _, x := range w.nodes {
			w.stores[store].Cut(string(x.name), true)
			w.stores[store].Cut("watch-"+string(x.name), true)
		}
		w.after(w.between(0, 5*time.Second), func() {
			for _, x := range w.nodes {
				w.stores[store].Cut(string(x.name), false)
				w.stores[store].Cut("watch-"+string(x.name), false)
			}
		})
	case 2:
		w.note("%s agent killed for a moment", n.name)
		n.kill()
		w.after(w.between(50*time.Millisecond, time.Second), n.start)
	case 3:
		w.abort()
	case 4:
		for range 3 {
			w.storeTrouble(n)
		}
	case 5:
		f := mem.Fault{Client: string(n.name), Op: mem.OpCommit, Key: dcs.KeyConfig, Kind: mem.Delay, Times: 1 + w.pick(3)}
		w.note("%s store fault %+v", n.name, f)
		w.stores[n.at].Inject(f)
		w.after(w.between(0, 4*time.Second), func() { w.stores[0].Deliver(); w.stores[1].Deliver() })
	default:
		w.trouble()
	}
}
