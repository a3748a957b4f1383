package agent

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/fsm"
	"github.com/pgregent/regent/internal/mono"
	"github.com/pgregent/regent/pgmgr"
	"github.com/pgregent/regent/pgmgr/keeper"
)

// storeHealth turns the fate of single calls into the two edges of the store.
type storeHealth struct {
	mail *mailbox
	mu   sync.Mutex
	down bool
}

// note takes in how a call ended. A refusal is an answer.
func (h *storeHealth) note(err error) {
	class := dcs.ClassOf(err)
	failed := class == events.Unavailable || class == events.Unknown
	h.mu.Lock()
	was := h.down
	h.down = failed
	h.mu.Unlock()
	switch {
	case failed && !was:
		h.mail.put(events.DCSUnavailable{Why: err.Error()})
	case !failed && was:
		h.mail.put(events.DCSRestored{})
	}
}

// execute carries out an action that isn't a PostgreSQL operation.
func (a *Agent) execute(ctx context.Context, o fsm.Ordered) {
	ctx, cancel := bounded(ctx, o, a.patience(o.Action))
	defer cancel()
	switch act := o.Action.(type) {
	case fsm.RefreshView:
		a.refreshView(ctx, o)
	case fsm.GrantLease:
		a.grantLease(ctx, o, act)
	case fsm.RenewLease:
		a.renewLease(ctx, o, act)
	case fsm.AcquireLeader:
		a.acquireLeader(ctx, o, act)
	case fsm.RevokeLease:
		err := a.opt.Store.Revoke(ctx, act.Lease)
		a.finished(o, dcs.ClassOf(err), err, events.Result{Lease: act.Lease})
	case fsm.WriteHistory:
		a.writeHistory(ctx, o, act)
	case fsm.ProbePeers:
		a.probePeers(ctx, o, act)
	case fsm.AskPosition:
		a.askPosition(ctx, o, act)
	case fsm.AskFailsafe:
		a.askFailsafe(ctx, o, act)
	case fsm.ExtendFence:
		err := a.opt.Keeper.Extend(ctx, a.grantOf(act.Fence))
		a.finished(o, pgmgr.ClassOf(err), err, events.Result{})
	case fsm.Disarm:
		err := a.opt.Keeper.Disarm(ctx, keeper.Waiver{Reason: keeper.WaiverReason(act.Reason), Config: a.toKeeper(act.Config)})
		a.finished(o, pgmgr.ClassOf(err), err, events.Result{})
	case fsm.Checkpoint:
		err := a.opt.Postgres.Checkpoint(ctx)
		a.finished(o, pgmgr.ClassOf(err), err, events.Result{})
	case fsm.SyncSlots:
		_, _, err := a.opt.Postgres.SyncSlots(ctx, act.Want, act.Drop)
		a.finished(o, pgmgr.ClassOf(err), err, events.Result{})
	case fsm.OpenTarget, fsm.GrantTarget, fsm.RenewTarget, fsm.CopyTarget, fsm.AcquireTarget:
		a.executeTarget(ctx, o)
	default:
		a.commit(ctx, o)
	}
}

// patience is how long an action may take.
func (a *Agent) patience(action fsm.Action) time.Duration {
	switch act := action.(type) {
	case fsm.RenewLease:
		return act.Timeout
	case fsm.RenewTarget:
		return act.Timeout
	case fsm.ProbePeers:
		return act.Timeout
	case fsm.AskPosition:
		return act.Timeout
	case fsm.AskFailsafe:
		return act.Timeout
	case fsm.Checkpoint, fsm.SyncSlots:
		return forever
	default:
		return max(a.Snapshot().Settings.RetryTimeout, time.Second)
	}
}

func (a *Agent) refreshView(ctx context.Context, o fsm.Ordered) {
	sent := mono.Now()
	v, err := a.opt.Store.View(ctx, dcs.Linearizable)
	a.health.note(err)
	if err == nil {
		view := dcs.Decode(v)
		if !a.admit(ctx, view) {
			return // the agent ends
		}
		a.mail.put(events.ClusterObserved{View: view, Read: sent})
	}
	a.finished(o, dcs.ClassOf(err), err, events.Result{})
}

// admit asks once whether the agent may take part at all. No phase but the first is
// reached without a linearizable view, so nothing has been done before.
func (a *Agent) admit(ctx context.Context, v events.ClusterView) bool {
	admitted := true
	a.admission.Do(func() {
		if a.opt.Admit == nil {
			return
		}
		if err := a.opt.Admit(ctx, v); err != nil {
			admitted = false
			a.end(fmt.Errorf("%w: %w", ErrExit, err))
		}
	})
	return admitted
}

func (a *Agent) grantLease(ctx context.Context, o fsm.Ordered, act fsm.GrantLease) {
	sent := mono.Now()
	id, err := newLeaseID()
	if err != nil {
		a.finished(o, events.Unavailable, err, events.Result{})
		return
	}
	l, err := a.opt.Store.Grant(ctx, id, act.TTL)
	a.health.note(err)
	a.finished(o, dcs.ClassOf(err), err, events.Result{Lease: l.ID, TTL: l.TTL, SentAt: sent})
}

// newLeaseID draws an id that no other lease has.
func newLeaseID() (events.LeaseID, error) {
	var unique [8]byte
	if _, err := rand.Read(unique[:]); err != nil {
		return "", fmt.Errorf("draw a lease id: %w", err)
	}
	return events.LeaseID(hex.EncodeToString(unique[:])), nil
}

// renewLease is one try (S6, S7): the time is taken before the request leaves.
func (a *Agent) renewLease(ctx context.Context, o fsm.Ordered, act fsm.RenewLease) {
	sent := mono.Now()
	l, err := a.opt.Store.Renew(ctx, act.Lease)
	a.health.note(err)
	switch class := dcs.ClassOf(err); class {
	case events.Done:
		a.mail.put(events.LeaseRenewed{ID: o.ID, Lease: l.ID, TTL: l.TTL, SentAt: sent, Keys: l.Keys})
	case events.Refused:
		a.mail.put(events.LeaseLost{Cause: events.LossRefused, Lease: act.Lease})
	default:
		a.mail.put(events.RenewalFailed{ID: o.ID, Class: class, Why: err.Error()})
	}
}

func (a *Agent) acquireLeader(ctx context.Context, o fsm.Ordered, act fsm.AcquireLeader) {
	rev, err := a.opt.Store.Commit(ctx, acquisition(a.opt.Name, act))
	a.health.note(err)
	if err == nil {
		a.mail.put(events.LeaseAcquired{ID: o.ID, Revision: rev})
		return
	}
	a.finished(o, dcs.ClassOf(err), err, events.Result{})
}

// acquisition takes the leader key if it is free and what the race was judged on still holds.
func acquisition(self events.NodeName, act fsm.AcquireLeader) dcs.Txn {
	return dcs.Txn{
		Guards: []dcs.Guard{
			{Key: dcs.KeyLeader, Absent: true}, versionGuard(dcs.KeySync, act.Sync), versionGuard(dcs.KeyConfig, act.Config),
			versionGuard(dcs.KeyFailsafe, act.Failsafe),
		},
		Writes: []dcs.Write{{Key: dcs.KeyLeader, Value: []byte(self), Lease: act.Lease}},
	}
}

// versionGuard holds if the key is still as it was read; version 0 means absent.
func versionGuard(key string, version events.Revision) dcs.Guard {
	return dcs.Guard{Key: key, Absent: version == 0, Version: version}
}

// commit carries out the actions that are one transaction.
func (a *Agent) commit(ctx context.Context, o fsm.Ordered) {
	t, err := a.transaction(o.Action)
	if err != nil {
		a.finished(o, events.Refused, err, events.Result{})
		return
	}
	rev, err := a.opt.Store.Commit(ctx, t)
	a.health.note(err)
	a.finished(o, dcs.ClassOf(err), err, events.Result{Revision: rev})
}

var errNoTransaction = errors.New("no executor for the action")

// transaction translates an action into the store's terms.
func (a *Agent) transaction(action fsm.Action) (dcs.Txn, error) {
	self := string(a.opt.Name)
	switch act := action.(type) {
	case fsm.ReleaseLeader:
		mine := dcs.ValueIs(dcs.KeyLeader, self)
		mine.Lease = act.Lease
		t := dcs.Txn{Guards: []dcs.Guard{mine}, Writes: []dcs.Write{{Key: dcs.KeyLeader, Delete: true}}}
		if act.Optime != 0 {
			t.Writes = append(t.Writes, a.statusWrites(dcs.StatusData{Optime: act.Optime})...)
		}
		return t, nil
	case fsm.HandOver:
		mine := dcs.ValueIs(dcs.KeyLeader, self)
		mine.Lease = act.Lease
		return dcs.Txn{
			Guards: []dcs.Guard{mine, versionGuard(dcs.KeyConfig, act.Config)},
			Writes: append(a.statusWrites(dcs.StatusData{Optime: act.Optime}),
				dcs.Write{Key: dcs.KeyLeader, Value: []byte(act.To), Lease: act.ToLease}),
		}, nil
	case fsm.PublishMember:
		return dcs.Txn{Writes: []dcs.Write{{
			Key: dcs.MemberKey(a.opt.Name), Value: dcs.EncodeMember(memberData(act.Member)), Lease: act.Member.HandOff,
		}}}, nil
	case fsm.ClaimInitialize:
		return dcs.ClaimInitialize(self), nil
	case fsm.ClearInitialize:
		return dcs.Txn{
			Guards: []dcs.Guard{{Key: dcs.KeyInitialize, Version: act.Version}},
			Writes: []dcs.Write{{Key: dcs.KeyInitialize, Delete: true}, {Key: dcs.KeyBootstrap, Delete: true}},
		}, nil
	case fsm.WriteInitialize:
		return dcs.Txn{
			Guards: []dcs.Guard{versionGuard(dcs.KeyInitialize, act.Version)},
			Writes: []dcs.Write{
				dcs.Put(dcs.KeyInitialize, dcs.EncodeInitialize(act.SystemID)),
				{Key: dcs.KeyBootstrap, Delete: true}, // the claim is fulfilled
			},
		}, nil
	case fsm.WriteConfig:
		return dcs.Txn{
			Guards: []dcs.Guard{{Key: dcs.KeyConfig, Absent: true}},
			Writes: []dcs.Write{dcs.Put(dcs.KeyConfig, []byte(act.JSON))},
		}, nil
	case fsm.WriteStatus:
		mine := dcs.ValueIs(dcs.KeyLeader, self)
		mine.Lease = act.Lease
		slots := map[string]events.LSN{}
		for _, s := range act.Slots {
			slots[s.Name] = s.LSN
		}
		return dcs.Txn{Guards: []dcs.Guard{mine}, Writes: a.statusWrites(
			dcs.StatusData{Optime: act.Optime, Slots: slots, RetainSlots: act.RetainSlots})}, nil
	case fsm.WriteSync:
		return a.syncWrite(act), nil
	case fsm.WriteFailsafe:
		return a.failsafeWrite(act), nil
	case fsm.ClearFailover:
		return dcs.Txn{
			Guards: []dcs.Guard{{Key: dcs.KeyFailover, Version: act.Version}},
			Writes: []dcs.Write{dcs.Put(dcs.KeyFailover, dcs.EncodeFailover(events.FailoverRequest{}))},
		}, nil
	case fsm.RequestFailover:
		return dcs.Txn{Writes: []dcs.Write{dcs.Put(dcs.KeyFailover, dcs.EncodeFailover(
			events.FailoverRequest{Leader: act.From, Candidate: act.To, ScheduledAt: act.At}))}}, nil
	case fsm.ClaimMove, fsm.SwitchStore, fsm.WithdrawMove, fsm.SettleMove:
		return a.moveTransaction(act)
	default:
		return dcs.Txn{}, fmt.Errorf("%w %s", errNoTransaction, action.Kind())
	}
}

// syncWrite is the holder's only: the leader key must be this member's, and the sync key
// as it was read (S14).
func (a *Agent) syncWrite(act fsm.WriteSync) dcs.Txn {
	mine := dcs.ValueIs(dcs.KeyLeader, string(a.opt.Name))
	mine.Lease = act.Lease
	w := dcs.Write{Key: dcs.KeySync, Delete: true}
	if !act.Delete {
		w = dcs.Put(dcs.KeySync, dcs.EncodeSync(a.opt.Name, 0, act.Standbys))
	}
	return dcs.Txn{Guards: []dcs.Guard{mine, versionGuard(dcs.KeySync, act.Version)}, Writes: []dcs.Write{w}}
}

// statusWrites keep the fields of the status key that they don't set. While there is a Patroni from
// before 2.1, the position goes into the key that it reads as well.
func (a *Agent) statusWrites(s dcs.StatusData) []dcs.Write {
	writes := []dcs.Write{dcs.Put(dcs.KeyStatus, dcs.EncodeStatus(a.config.lastStatus(), s))}
	if slices.ContainsFunc(a.Snapshot().Store.View.Members, readsOptime) {
		writes = append(writes, dcs.Put(dcs.KeyOptime, dcs.EncodeOptime(s.Optime)))
	}
	return writes
}

// readsOptime: versions before 2.1 know no status key. One that can't be read says nothing.
func readsOptime(m events.Member) bool {
	var major, minor int
	n, err := fmt.Sscanf(m.Version, "%d.%d", &major, &minor)
	return n == 2 && err == nil && (major < 2 || major == 2 && minor < 1)
}

// memberData is what is published, in the store's terms.
func memberData(m events.Member) dcs.MemberData {
	return dcs.MemberData{
		ConnURL: m.ConnURL, APIURL: m.APIURL, State: m.State, Role: m.Role, Version: m.Version,
		CheckpointPending: m.CheckpointPending, Tags: dcs.PublishedTags(m.Tags.Raw), PendingRestart: m.PendingRestart,
		XLogLocation: m.XLogLocation, ReceiveLSN: m.ReceiveLSN, ReplayLSN: m.ReplayLSN, ReplicationState: m.ReplicationState, Timeline: m.Timeline, Pause: m.Pause,
		Regent: m.Regent, HandOff: m.HandOff, ScheduledRestart: m.ScheduledRestart, Unfit: m.Unfit, Unfenced: m.Unfenced,
		Move: m.Move, Barred: m.Barred, Orphan: m.Orphan, PendingRestartReason: m.PendingReason,
	}
}

// writeHistory brings the history key up to the server's own timeline history.
func (a *Agent) writeHistory(ctx context.Context, o fsm.Ordered, act fsm.WriteHistory) {
	local, err := a.opt.Postgres.TimelineHistory(act.Timeline)
	if err != nil {
		a.finished(o, pgmgr.ClassOf(err), err, events.Result{})
		return
	}
	s := a.Snapshot()
	lines := mergeHistory(s.Store.View.History.Lines, local, a.opt.Name, a.opt.Wall(), s.Settings.MaxTimelinesHistory)
	rev, err := a.opt.Store.Commit(ctx, dcs.Txn{
		Guards: []dcs.Guard{versionGuard(dcs.KeyHistory, act.Version)},
		Writes: []dcs.Write{dcs.Put(dcs.KeyHistory, dcs.EncodeHistory(lines))},
	})
	a.health.note(err)
	a.finished(o, dcs.ClassOf(err), err, events.Result{Revision: rev})
}

// mergeHistory keeps what the store already says of a switch (its time, its leader)
// and adds the switches that it doesn't have; the last one is ours.
func mergeHistory(known, local []events.HistoryLine, self events.NodeName, now time.Time, keep int) []events.HistoryLine {
	out := make([]events.HistoryLine, 0, len(local))
	for i, l := range local {
		for _, k := range known {
			if k.Timeline == l.Timeline && k.LSN == l.LSN {
				l = k
			}
		}
		if i == len(local)-1 && l.NewLeader == "" {
			l.Timestamp, l.NewLeader = now.Format("2006-01-02T15:04:05.000000-07:00"), self
		}
		out = append(out, l)
	}
	if keep > 0 && len(out) > keep {
		out = out[len(out)-keep:]
	}
	return out
}
