package fsm

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/pgregent/regent/events"
)

// Synchronous mode. The sync key names those who may lead without losing what was
// acknowledged: its writer and, once it is confirmed, a standby that every commit waits
// for. So at every instant the standbys in the key are among those that commits wait for.
// A standby leaves the key first, and the server's setting after that; it enters the
// setting first, and the key when it has everything that was acknowledged without it.
// A crash between the steps leaves a key that names fewer.

// SyncWork is what this run of the agent knows of it beyond what is observed.
type SyncWork struct {
	// Wrote is the key as this member wrote it last, at revision At; Writing is what it
	// is about to write.
	Wrote   events.Sync     `json:"wrote"`
	At      events.Revision `json:"at,omitempty"`
	Writing events.Sync     `json:"writing"`
	// Settled: the last write is known to have happened, and none before it can happen
	// any more, since each is guarded by the version that it was to replace.
	Settled bool `json:"settled,omitempty"`
	// Lost: the last write was refused, or nobody knows.
	Lost string `json:"lost,omitempty"`
	// Asked is what was last to be put in force, in the server of that PID. Since when it
	// was: each commit beyond that position waits for the names; 0: not known.
	Asked events.SyncNames `json:"asked"`
	PID   int              `json:"pid,omitempty"`
	Since events.LSN       `json:"since,omitempty"`
	// Again holds back the next attempt after one that failed; Why is its reason.
	Again events.Instant `json:"again,omitempty"`
	Why   string         `json:"why,omitempty"`
	// Said is Patroni's line for the last step.
	Said string `json:"said,omitempty"`
	// LeaveUntil: this standby asks to be released from being synchronous, and waits for
	// that until then; 0: it doesn't.
	LeaveUntil events.Instant `json:"leave_until,omitempty"`
}

// syncKey is the sync key as far as is known: a write of our own is newer than a view
// from before it.
func (s *State) syncKey() events.Sync {
	if s.Sync.At > s.view().Revision {
		return s.Sync.Wrote
	}
	return s.view().Sync
}

// sameName compares as PostgreSQL compares the names of standbys.
func sameName(a, b events.NodeName) bool { return strings.EqualFold(string(a), string(b)) }

func hasName(list []events.NodeName, n events.NodeName) bool {
	return slices.ContainsFunc(list, func(x events.NodeName) bool { return sameName(x, n) })
}

// syncActive: only those whom the sync key names may lead.
func (s *State) syncActive() bool { return s.Settings.Sync && s.view().Sync.Leader != "" }

// inSync reports whether the sync key names the member, as the leader or as a standby.
func (s *State) inSync(n events.NodeName) bool {
	k := s.view().Sync
	return sameName(k.Leader, n) || hasName(k.Standbys, n)
}

// syncBars tells whether synchronous mode keeps this member from leading. An operator's
// failover to it does not ask: it may cost what was acknowledged.
func (s *State) syncBars() (bool, string) {
	f := s.wish()
	if !s.syncActive() || s.inSync(s.Self) || f.Candidate == s.Self && f.Leader == "" {
		return false, ""
	}
	k := s.view().Sync
	return true, fmt.Sprintf("synchronous mode is on, and only %s may lead: it has all that was acknowledged",
		strings.Join(append([]string{string(k.Leader)}, asStrings(k.Standbys)...), " or "))
}

// syncTaken tells whether the sync key was written by another member: whoever wrote it
// was the leader after us.
func (s *State) syncTaken() (bool, string) {
	if k := s.view().Sync; s.syncActive() && !sameName(k.Leader, s.Self) {
		return true, fmt.Sprintf("synchronous mode is on, and %s was the last leader", k.Leader)
	}
	return false, ""
}

// settled: no write that this member has begun can still put a standby into the key. An
// absent key is safe: whatever creates it names nobody.
func (s *State) settled() bool {
	k := s.syncKey()
	return k.Version == 0 || s.Sync.Settled && s.Sync.Wrote.Version == k.Version
}

// unclaimed: before this member's server becomes writable, the key must say that nobody
// else may lead (what is acknowledged from then on, nobody else has).
func (s *State) unclaimed() bool {
	k := s.syncKey()
	return s.Settings.Sync && (!sameName(k.Leader, s.Self) || len(k.Standbys) > 0 || !s.settled())
}

// beforePromotion is what commits wait for when the server leaves recovery.
func (s *State) beforePromotion() *events.SyncNames {
	if !s.Settings.Sync {
		return nil
	}
	return &events.SyncNames{Hold: s.Settings.SyncStrict}
}

// writeSync begins a write of the key.
func (e *effects) writeSync(standbys []events.NodeName, remove bool) {
	if e.InFlight(WriteSync{}) {
		return
	}
	before := len(e.out)
	e.once(WriteSync{Standbys: standbys, Delete: remove, Version: e.syncKey().Version, Lease: e.Lease.ID})
	if len(e.out) == before {
		return // not now
	}
	e.Sync.Settled = false
	e.Sync.Writing = events.Sync{}
	if !remove {
		e.Sync.Writing = events.Sync{Leader: e.Self, Standbys: standbys}
	}
}

// syncRefused is Patroni's line for a sync key that is not as it was read.
const syncRefused = "Synchronous replication key updated by someone else."

// outcomeWriteSync: the key was written, or not, or nobody knows. What isn't known is read.
func (e *effects) outcomeWriteSync(ev events.ActionFinished) {
	if ev.Class == events.Done {
		e.Sync.Wrote, e.Sync.At = e.Sync.Writing, ev.Result.Revision
		if e.Sync.Wrote.Leader != "" {
			e.Sync.Wrote.Version = ev.Result.Revision
		}
		e.Sync.Settled, e.Sync.Lost = true, ""
		return
	}
	e.Sync.At = 0 // only the store knows now
	switch ev.Class {
	case events.Refused:
		e.Sync.Lost = syncRefused
		e.Store.RetryAt = 0
	case events.Unavailable:
		e.Sync.Lost = "the sync key could not be written: " + ev.Why
	default:
		e.Sync.Lost = "whether the sync key was written is not known: " + ev.Why
	}
	e.refresh()
}

// outcomeSyncNames: the setting is in force, or not.
func (e *effects) outcomeSyncNames(ev events.ActionFinished) {
	e.Sync.Since, e.Sync.Why, e.Sync.Again = 0, ev.Why, e.Now.Add(e.Settings.LoopWait/4)
	if ev.Class == events.Done && e.pg().PID == e.Sync.PID {
		e.Sync.Since, e.Sync.Why, e.Sync.Again = ev.Result.Position, "", 0
	}
}

// setSyncNames puts the setting in force.
func (e *effects) setSyncNames(n events.SyncNames) {
	e.Sync.Asked, e.Sync.PID, e.Sync.Since = n, e.pg().PID, 0
	e.operate(SetSyncNames{Sync: n})
}

// waitedFor reports whether the standby has all that was acknowledged, and every commit
// waits for it.
func (s *State) waitedFor(n events.NodeName) (bool, string) {
	if s.Sync.Since == 0 || s.Sync.PID != s.pg().PID || !hasName(s.Sync.Asked.Names, n) {
		return false, fmt.Sprintf("since when commits wait for %s is not known", n)
	}
	for _, st := range s.pg().Standbys {
		if !sameName(st.Name, n) {
			continue
		}
		if st.SyncState == "sync" && st.Flushed >= s.Sync.Since {
			return true, ""
		}
		return false, fmt.Sprintf("%s is %s and has flushed %s, of %s", n, orNone(st.SyncState), st.Flushed, s.Sync.Since)
	}
	return false, string(n) + " is not connected"
}

// pickSync chooses the standby that commits are to wait for; nobody: why.
func (s *State) pickSync() (picked []events.NodeName, why string) {
	type candidate struct {
		events.StandbyState
		name   events.NodeName
		chosen int
		tags   events.Tags
	}
	var list []candidate
	var not []string
	key, waited := s.syncKey(), s.waited()
	for _, m := range s.view().Members {
		i := slices.IndexFunc(s.pg().Standbys, func(st events.StandbyState) bool {
			return sameName(st.Name, m.Name) && st.State == "streaming" && st.Flushed != 0
		})
		switch {
		case sameName(m.Name, s.Self):
		case i < 0:
			not = append(not, string(m.Name)+" does not stream from us")
		case m.State != "running":
			not = append(not, fmt.Sprintf("%s is %s", m.Name, orNone(m.State)))
		case m.Tags.NoSync:
			not = append(not, string(m.Name)+" is tagged nosync")
		default:
			c := candidate{StandbyState: s.pg().Standbys[i], name: m.Name, tags: m.Tags}
			if hasName(key.Standbys, m.Name) {
				c.chosen = 2
			} else if hasName(waited, m.Name) {
				c.chosen = 1
			}
			list = append(list, c)
		}
	}
	most := s.pg().Position
	if len(list) > 1 {
		most = slices.MaxFunc(list, func(a, b candidate) int { return cmp.Compare(a.Flushed, b.Flushed) }).Flushed
	}
	list = slices.DeleteFunc(list, func(c candidate) bool {
		far := s.Settings.MaximumLagOnSync > 0 && int64(most)-int64(c.Flushed) > s.Settings.MaximumLagOnSync
		if far {
			not = append(not, fmt.Sprintf("%s is %d bytes behind", c.name, int64(most)-int64(c.Flushed)))
		}
		return far
	})
	if len(list) == 0 {
		if not == nil {
			not = []string{"there is no other member"}
		}
		return nil, strings.Join(not, ", ")
	}
	// Whoever is chosen stays so: a change costs a moment without a successor.
	best := slices.MinFunc(list, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(yes(a.tags.NoFailover), yes(b.tags.NoFailover)),
			cmp.Compare(max(b.tags.SyncPriority, 1), max(a.tags.SyncPriority, 1)), cmp.Compare(b.chosen, a.chosen),
			strings.Compare(b.SyncState, a.SyncState), cmp.Compare(b.Flushed, a.Flushed), cmp.Compare(a.name, b.name))
	})
	return []events.NodeName{best.name}, ""
}

// waited are the standbys that commits wait for, as far as the setting in force says.
func (s *State) waited() []events.NodeName {
	names, _ := events.ParseSyncNames(s.pg().SyncNames)
	return names
}

func yes(b bool) int {
	if b {
		return 1
	}
	return 0
}

func asStrings(names []events.NodeName) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = string(n)
	}
	return out
}

// listed prints names as Patroni's log does.
func listed(names []events.NodeName) string {
	if len(names) == 0 {
		return "[]"
	}
	return "['" + strings.Join(asStrings(names), "', '") + "']"
}
