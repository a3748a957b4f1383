package fsm

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/dcs/mem"
	"github.com/pgregent/regent/events"
)

// view reads the store as it is.
func (w *world) view(c *mem.Client) (events.ClusterView, bool) {
	v, err := c.View(context.Background(), dcs.Linearizable)
	return dcs.Decode(v), err == nil
}

// operate runs the PostgreSQL operations one after another.
func (n *node) operate() {
	if n.busy || len(n.lane) == 0 {
		return
	}
	o := n.lane[0]
	n.lane = n.lane[1:]
	n.busy = true
	took := map[string]time.Duration{
		"bootstrap": 300 * time.Millisecond, "clone": 400 * time.Millisecond, "rewind": 200 * time.Millisecond,
	}[o.Action.Kind()]
	end := func() {
		n.busy = false
		class, r := n.perform(o)
		if n.aborted != o.ID { // a cancelled operation reports nothing
			if n.w.pick(20) > 0 {
				p := n.pg.observe()
				r.Postgres = &p
			}
			n.finished(o, class, r)
		}
		n.operate()
	}
	n.later(took+n.w.between(2*time.Millisecond, 60*time.Millisecond), func() {
		if a, ok := o.Action.(Stop); ok && a.Mode == "fast" && n.pg.writable() && n.w.pick(3) == 0 {
			// Something keeps the last processes: an archiver, a standby that is far away.
			n.take(events.CleanShutdown{ID: o.ID, End: n.pg.close()})
			n.later(n.w.between(time.Millisecond, 3*time.Second), end)
			return
		}
		end()
	})
}

// perform does one operation; in bad times it may fail, before or after it happened.
func (n *node) perform(o Ordered) (events.Class, events.Result) {
	if !n.w.calm && n.w.pick(15) == 0 {
		if n.w.pick(2) == 0 {
			n.effect(o)
			return events.Unknown, events.Result{}
		}
		return events.Unavailable, events.Result{}
	}
	return n.effect(o)
}

func (n *node) effect(o Ordered) (events.Class, events.Result) {
	p := n.pg
	refused := func() (events.Class, events.Result) { return events.Refused, events.Result{} }
	past := func(f Fence) bool { return n.w.now >= f.Deadline.Add(-f.Budget) }
	switch a := o.Action.(type) {
	case Bootstrap:
		if p.data {
			return refused()
		}
		p.data, p.branch, p.lsn = true, &branch{number: 1}, 100
		p.system = events.SystemID(fmt.Sprintf("70000000000%08d", n.w.pick(1e8)))
	case PostBootstrap:
		if !p.writable() {
			return events.Unavailable, events.Result{}
		}
	case Clone, Rewind, Judge:
		return n.learn(o)
	case StartStandby:
		if p.running || !p.data {
			return refused()
		}
		p.upstream = a.Upstream
		p.start(true)
	case StartPrimary:
		if p.running || !p.data || past(a.Fence) {
			return refused()
		}
		p.upstream, p.armed = nil, n.rebased(a.Fence)
		p.start(false)
	case Promote:
		if !p.running || !p.recovery || past(a.Fence) {
			return refused()
		}
		p.armed = n.rebased(a.Fence)
		if p.names = (events.SyncNames{Own: true}); a.Sync != nil {
			p.names = *a.Sync
		}
		p.promote()
	case SetSyncNames:
		if !p.writable() {
			return refused()
		}
		p.names = a.Sync
		return events.Done, events.Result{Position: p.lsn}
	case Follow:
		if !p.running {
			return refused()
		}
		p.upstream = a.Upstream
	case Stop:
		return events.Done, n.stop(a)
	}
	return events.Done, events.Result{}
}

// stop is clean: connected standbys get everything before the server is gone.
func (n *node) stop(a Stop) events.Result {
	p := n.pg
	var r events.Result
	if a.Mode == "fast" && p.data {
		if p.writable() {
			p.close()
		}
		r.EndLSN = p.lsn
	}
	p.die(true, false)
	return r
}

// learn are the operations that need another server.
func (n *node) learn(o Ordered) (events.Class, events.Result) {
	var from events.Upstream
	switch a := o.Action.(type) {
	case Clone:
		from = a.From
	case Rewind:
		from = a.Upstream
	case Judge:
		from = a.Upstream
	}
	p := n.pg
	for _, other := range n.w.nodes {
		up := other.pg
		if other.name != from.Name || n.w.apart(n, other) || !up.running || !up.ready || other.frozen {
			continue
		}
		if o.Action.Kind() == (Judge{}).Kind() {
			d := events.Divergence{Verdict: events.VerdictRewind, Why: "forked off"}
			switch {
			case up.recovery:
				d.Verdict = events.VerdictWait
			case p.contained(up):
				d.Verdict = events.VerdictFollow
			}
			return events.Done, events.Result{Divergence: &d}
		}
		if p.running || up.recovery && o.Action.Kind() == (Rewind{}).Kind() {
			return events.Refused, events.Result{}
		}
		p.copyFrom(up)
		return events.Done, events.Result{}
	}
	return events.Unavailable, events.Result{}
}

// execute carries out what isn't an operation on PostgreSQL. The request is on its way
// for half of the time, the answer for the other.
func (n *node) execute(o Ordered) {
	sent := n.w.now
	way := n.w.between(500*time.Microsecond, 10*time.Millisecond)
	n.later(way, func() {
		switch a := o.Action.(type) {
		case ProbePeers:
			n.probe(o, a)
		case AskPosition:
			n.askPosition(o, a, n.w.now.Add(a.Timeout))
		case ExtendFence:
			n.extend(o, a)
		case Disarm:
			n.disarm(o, a)
		case AskFailsafe:
			n.askFailsafe(o, a)
		case Checkpoint, SyncSlots:
			n.finished(o, events.Done, events.Result{})
		default:
			if n.executeMove(o, sent, way) {
				return
			}
			ev := n.call(o, sent)
			n.later(way, func() {
				n.health(ev)
				for _, e := range ev {
					n.take(e)
				}
			})
		}
	})
}

// health turns the fate of calls into the store's two edges.
func (n *node) health(evs []events.Event) {
	var class events.Class
	switch ev := evs[len(evs)-1].(type) {
	case events.ActionFinished:
		class = ev.Class
	case events.RenewalFailed:
		class = ev.Class
	}
	failed := class == events.Unavailable || class == events.Unknown
	if failed != n.down {
		n.down = failed
		if failed {
			n.take(events.DCSUnavailable{Why: "told by the world"})
		} else {
			n.take(events.DCSRestored{})
		}
	}
}

// call makes one call to the store, and returns the events that tell how it ended.
func (n *node) call(o Ordered, sent events.Instant) []events.Event {
	ctx := context.Background()
	end := func(err error, r events.Result) []events.Event {
		ev := events.ActionFinished{ID: o.ID, Action: o.Action.Kind(), Class: dcs.ClassOf(err), Result: r}
		if err != nil {
			ev.Why = err.Error()
		}
		return []events.Event{ev}
	}
	if o.Until != 0 && n.w.now >= o.Until {
		return end(fmt.Errorf("%w: too late", dcs.ErrUnavailable), events.Result{})
	}
	switch a := o.Action.(type) {
	case RefreshView:
		v, err := n.client.View(ctx, dcs.Linearizable)
		out := end(err, events.Result{})
		if err == nil {
			out = append([]events.Event{events.ClusterObserved{View: dcs.Decode(v), Read: sent}}, out...)
		}
		return out
	case GrantLease:
		id := events.LeaseID(fmt.Sprintf("%s-%d", n.name, n.w.pick(1e9)))
		l, err := n.client.Grant(ctx, id, a.TTL)
		return end(err, events.Result{Lease: l.ID, TTL: l.TTL, SentAt: sent})
	case RenewLease:
		l, err := n.client.Renew(ctx, a.Lease)
		switch {
		case err == nil:
			return []events.Event{events.LeaseRenewed{ID: o.ID, Lease: l.ID, TTL: l.TTL, SentAt: sent, Keys: l.Keys}}
		case errors.Is(err, dcs.ErrRefused):
			return []events.Event{events.LeaseLost{Cause: events.LossRefused, Lease: a.Lease}}
		default:
			return []events.Event{events.RenewalFailed{ID: o.ID, Class: dcs.ClassOf(err), Why: err.Error()}}
		}
	case RevokeLease:
		return end(n.client.Revoke(ctx, a.Lease), events.Result{Lease: a.Lease})
	}
	rev, err := n.client.Commit(ctx, n.transaction(o.Action))
	if _, ok := o.Action.(AcquireLeader); ok && err == nil {
		return []events.Event{events.LeaseAcquired{ID: o.ID, Revision: rev}}
	}
	return end(err, events.Result{Revision: rev})
}

// transaction puts an action into the store's terms.
func (n *node) transaction(action Action) dcs.Txn {
	mine := func(lease events.LeaseID) dcs.Guard {
		g := dcs.ValueIs(dcs.KeyLeader, string(n.name))
		g.Lease = lease
		return g
	}
	same := func(key string, v events.Revision) dcs.Guard { return dcs.Guard{Key: key, Absent: v == 0, Version: v} }
	status := func(lsn events.LSN) dcs.Write {
		return dcs.Put(dcs.KeyStatus, dcs.EncodeStatus(nil, dcs.StatusData{Optime: lsn}))
	}
	if t, ok := n.markMove(action); ok {
		return t
	}
	one := func(g dcs.Guard, w ...dcs.Write) dcs.Txn { return dcs.Txn{Guards: []dcs.Guard{g}, Writes: w} }
	switch a := action.(type) {
	case AcquireLeader:
		t := one(dcs.Guard{Key: dcs.KeyLeader, Absent: true}, dcs.Write{Key: dcs.KeyLeader, Value: []byte(n.name), Lease: a.Lease})
		t.Guards = append(t.Guards, same(dcs.KeySync, a.Sync), same(dcs.KeyConfig, a.Config), same(dcs.KeyFailsafe, a.Failsafe))
		return t
	case ReleaseLeader:
		t := one(mine(a.Lease), dcs.Write{Key: dcs.KeyLeader, Delete: true})
		if a.Optime != 0 {
			t.Writes = append(t.Writes, status(a.Optime))
		}
		return t
	case HandOver:
		t := one(mine(a.Lease), status(a.Optime), dcs.Write{Key: dcs.KeyLeader, Value: []byte(a.To), Lease: a.ToLease})
		t.Guards = append(t.Guards, same(dcs.KeyConfig, a.Config))
		return t
	case PublishMember:
		m := a.Member
		data := dcs.EncodeMember(dcs.MemberData{
			ConnURL: m.ConnURL, APIURL: m.APIURL, State: m.State, Role: m.Role, Version: m.Version, Pause: m.Pause,
			CheckpointPending: m.CheckpointPending, XLogLocation: m.XLogLocation, Timeline: m.Timeline, Regent: m.Regent, HandOff: m.HandOff,
			Unfit: m.Unfit, Tags: m.Tags.Raw, Move: m.Move,
		})
		return dcs.Txn{Writes: []dcs.Write{{Key: dcs.MemberKey(n.name), Value: data, Lease: m.HandOff}}}
	case ClaimInitialize:
		return dcs.ClaimInitialize(string(n.name))
	case ClearInitialize:
		return one(same(dcs.KeyInitialize, a.Version), dcs.Write{Key: dcs.KeyInitialize, Delete: true})
	case WriteInitialize:
		return one(same(dcs.KeyInitialize, a.Version), dcs.Put(dcs.KeyInitialize, dcs.EncodeInitialize(a.SystemID)))
	case WriteConfig:
		return one(dcs.Guard{Key: dcs.KeyConfig, Absent: true}, dcs.Put(dcs.KeyConfig, []byte(a.JSON)))
	case WriteStatus:
		return one(mine(a.Lease), status(a.Optime))
	case WriteHistory:
		var lines []events.HistoryLine
		for b := n.pg.branch; b != nil && b.parent != nil; b = b.parent {
			lines = append([]events.HistoryLine{{Timeline: b.parent.number, LSN: b.fork}}, lines...)
		}
		return one(same(dcs.KeyHistory, a.Version), dcs.Put(dcs.KeyHistory, dcs.EncodeHistory(lines)))
	case ClearFailover:
		return one(same(dcs.KeyFailover, a.Version), dcs.Put(dcs.KeyFailover, dcs.EncodeFailover(events.FailoverRequest{})))
	case WriteSync:
		w := dcs.Write{Key: dcs.KeySync, Delete: true}
		if !a.Delete {
			w = dcs.Put(dcs.KeySync, dcs.EncodeSync(n.name, 0, a.Standbys))
		}
		t := one(mine(a.Lease), w)
		t.Guards = append(t.Guards, same(dcs.KeySync, a.Version))
		return t
	case WriteFailsafe:
		return n.failsafeWrite(a)
	case RequestFailover:
		return dcs.Txn{Writes: []dcs.Write{dcs.Put(dcs.KeyFailover, dcs.EncodeFailover(events.FailoverRequest{Leader: a.From, Candidate: a.To, ScheduledAt: a.At}))}}
	default:
		n.w.fail("no executor for %s", action.Kind())
		return dcs.Txn{}
	}
}

// disarm is the keeper: the deadline goes, and what was given before the reason was
// known doesn't bring it back.
func (n *node) disarm(o Ordered, a Disarm) {
	p := n.pg
	switch {
	case n.w.pick(20) == 0 && !n.w.calm:
		n.finished(o, events.Unavailable, events.Result{})
	case p.running:
		a.Config += n.base
		p.armed, p.waived = Fence{}, &a
		n.finished(o, events.Done, events.Result{})
	default:
		n.finished(o, events.Done, events.Result{})
	}
}

func (n *node) extend(o Ordered, a ExtendFence) {
	p := n.pg
	a.Fence = n.rebased(a.Fence)
	if p.waived != nil && a.Fence.Config <= p.waived.Config {
		n.finished(o, events.Refused, events.Result{})
		return
	}
	if !p.running || a.Fence.Revision < p.armed.Revision || n.w.now >= a.Fence.Deadline.Add(-a.Fence.Budget) {
		n.finished(o, events.Refused, events.Result{})
		return
	}
	if a.Fence.Revision > p.armed.Revision || a.Fence.Deadline > p.armed.Deadline {
		p.armed, p.waived, p.rogue = a.Fence, nil, 0 // adopted, if it was one
	}
	n.finished(o, events.Done, events.Result{})
}

// answer is what a peer says of itself.
func (n *node) answer(name events.NodeName) events.Peer {
	out := events.Peer{Name: name, Why: "no answer"}
	for _, other := range n.w.nodes {
		p := other.pg
		if other.name != name || !other.up || other.frozen || n.w.apart(n, other) || !p.running || !p.ready {
			continue
		}
		out = events.Peer{
			Name: name, Reachable: true, Primary: !p.recovery, Timeline: p.branch.number, Position: p.lsn,
			Tags: events.Tags{FailoverPriority: 1},
		}
	}
	return out
}

func (n *node) probe(o Ordered, a ProbePeers) {
	for _, p := range a.Peers {
		n.take(events.PeerObserved{ID: o.ID, Peer: n.answer(p.Name)})
	}
	n.finished(o, events.Done, events.Result{})
}

func (n *node) askPosition(o Ordered, a AskPosition, until events.Instant) {
	p := n.answer(a.Name)
	switch {
	case p.Reachable && p.Position >= a.At:
		n.finished(o, events.Done, events.Result{Position: p.Position})
	case n.w.now >= until:
		n.finished(o, events.Unavailable, events.Result{})
	default:
		n.later(10*time.Millisecond, func() { n.askPosition(o, a, until) })
	}
}
