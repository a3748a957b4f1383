package fsm

import (
	"fmt"

	"github.com/pgregent/regent/events"
)

// syncViolations are what must never be ordered in synchronous mode: it would let somebody
// lead who lacks what was acknowledged.
func syncViolations(before, after *State, d Decision) (out []string) {
	bad := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	for _, o := range d.Actions {
		switch a := o.Action.(type) {
		case WriteSync:
			for _, n := range a.Standbys {
				if before.Phase == Leading && !hasName(before.syncKey().Standbys, n) && !confirmed(after, n) {
					bad("the sync key is to name %s, which commits are not known to wait for", n)
				}
			}
			if before.Phase != Leading && len(a.Standbys) > 0 {
				bad("in phase %s the sync key is to name %v", before.Phase, a.Standbys)
			}
		case SetSyncNames:
			for _, n := range after.syncKey().Standbys {
				if !hasName(a.Sync.Names, n) {
					bad("commits are not to wait for %s any more, which the sync key names", n)
				}
			}
			if !after.settled() && len(after.waited()) > 0 && dropsAny(after.waited(), a.Sync.Names) {
				bad("commits are not to wait for all of %v any more, which a write under way may name", after.waited())
			}
		case Promote:
			k := after.syncKey()
			if after.Settings.Sync && (!sameName(k.Leader, after.Self) || len(k.Standbys) > 0) {
				bad("PostgreSQL is to be promoted while the sync key lets %v lead", append(k.Standbys, k.Leader))
			}
		case AcquireLeader:
			if after.syncActive() && !after.paused() && !after.inSync(after.Self) && after.wish().Candidate != after.Self && after.Phase != Bootstrapping {
				bad("the leader key is to be taken, and the sync key doesn't name this member")
			}
		}
	}
	return out
}

// confirmed: every commit waits for the standby, and it has what was acknowledged before.
func confirmed(s *State, n events.NodeName) bool {
	for _, st := range s.pg().Standbys {
		if sameName(st.Name, n) && st.SyncState == "sync" && hasName(s.waited(), n) {
			return s.Sync.Since != 0 && st.Flushed >= s.Sync.Since
		}
	}
	return false
}

func dropsAny(was, now []events.NodeName) bool {
	for _, n := range was {
		if !hasName(now, n) {
			return true
		}
	}
	return false
}
