package fsm

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgregent/regent/events"
)

// syncStep is the next step of the holder's work on synchronous mode: one of a write of
// the key and a change of the setting, or none, and why.
type syncStep struct {
	write    bool
	standbys []events.NodeName
	remove   bool
	set      *events.SyncNames
	why      string
	status   string
}

// nextSyncStep is asked whenever anything was observed; one step at a time is under way.
func (s *State) nextSyncStep() syncStep {
	k := s.syncKey()
	switch {
	case !s.Settings.Sync && k.Leader == "" && !s.pg().SyncHeld:
		return syncStep{why: "synchronous mode is off"}
	case !s.primaryUp() || s.unseen():
		return syncStep{why: "the primary has not been seen as it is now"}
	case s.InFlight(WriteSync{}):
		return syncStep{why: "the sync key is being written"}
	case s.Store.DownSince != 0:
		return syncStep{why: "the store doesn't answer"}
	case !s.Settings.Sync && k.Leader != "":
		return syncStep{write: true, remove: true, why: "synchronous mode was switched off: the sync key goes first, the setting after it",
			status: "Disabled synchronous replication"}
	case !s.Settings.Sync && s.Now < s.Sync.Again:
		return syncStep{why: "pausing after a failed attempt: " + s.Sync.Why}
	case !s.Settings.Sync:
		return syncStep{set: &events.SyncNames{Own: true}, why: "synchronous mode is off: commits wait for whom the configuration says"}
	case k.Leader == "":
		return syncStep{write: true, why: "synchronous mode is on: from now on nobody else may lead until a standby is confirmed",
			status: "Enabled synchronous replication"}
	case !sameName(k.Leader, s.Self):
		return syncStep{write: true, why: fmt.Sprintf("the sync key says that %s leads", k.Leader),
			status: fmt.Sprintf("Inconsistent state of /sync key detected, leader = %s doesn't match %s, updating synchronous replication key", k.Leader, s.Self)}
	}
	picked, none := s.pickSync()
	if step, due := s.shrinkSync(picked, none); due {
		return step
	}
	if step, due := s.assignSync(picked, none); due {
		return step
	}
	return s.growSync(picked, none)
}

// shrinkSync: who is not to be waited for, or isn't, leaves the key before anything else.
func (s *State) shrinkSync(picked []events.NodeName, none string) (syncStep, bool) {
	k, waited := s.syncKey(), s.waited()
	keep := slices.DeleteFunc(slices.Clone(k.Standbys), func(n events.NodeName) bool { return !hasName(picked, n) || !hasName(waited, n) })
	if len(keep) == len(k.Standbys) {
		return syncStep{}, false
	}
	step := syncStep{write: true, standbys: keep,
		status: fmt.Sprintf("Updating synchronous privilege temporarily from %s to %s", listed(k.Standbys), listed(keep))}
	gone := slices.DeleteFunc(slices.Clone(k.Standbys), func(n events.NodeName) bool { return hasName(keep, n) })
	switch {
	case none != "":
		step.why = fmt.Sprintf("nobody can be the synchronous standby: %s", none)
	case !hasName(picked, gone[0]):
		step.why = fmt.Sprintf("%s takes the place of %s", strings.Join(asStrings(picked), ","), strings.Join(asStrings(gone), ","))
	default:
		step.why = fmt.Sprintf("commits don't wait for %s, as the sync key says (synchronous_standby_names is %q)", gone[0], s.pg().SyncNames)
		step.status = fmt.Sprintf("Inconsistent state between synchronous_standby_names = %s and /sync = %s key detected, updating synchronous replication key...",
			listed(waited), listed(k.Standbys))
	}
	return step, true
}

// assignSync: what commits wait for is put in force. Who is not waited for any more must
// have left the key for certain.
func (s *State) assignSync(picked []events.NodeName, none string) (syncStep, bool) {
	want := events.SyncNames{Names: picked, Hold: s.Settings.SyncStrict}
	inForce, waited := s.pg().SyncNames == want.Text(), s.waited()
	dropped := slices.ContainsFunc(waited, func(n events.NodeName) bool { return !hasName(picked, n) })
	known := len(picked) == 0 || hasName(s.syncKey().Standbys, picked[0]) || s.Sync.Since != 0 && s.Sync.PID == s.pg().PID && hasName(s.Sync.Asked.Names, picked[0])
	switch {
	case inForce && known:
		return syncStep{}, false
	case dropped && !s.settled():
		return syncStep{write: true, standbys: s.syncKey().Standbys, why: "an earlier write of the sync key may still be on its way; it is made void first"}, true
	case s.Now < s.Sync.Again:
		return syncStep{why: "pausing after a failed attempt: " + s.Sync.Why}, true
	}
	step := syncStep{set: &want, why: "commits are to wait for " + strings.Join(asStrings(picked), ","),
		status: "Assigning synchronous standby status to " + listed(picked)}
	switch {
	case len(picked) > 0 && inForce:
		step.why = fmt.Sprintf("since when commits wait for %s is to be found out", picked[0])
	case len(picked) == 0 && s.Settings.SyncStrict:
		step.why, step.status = "strict mode: commits wait until there is a standby: "+none, "No standbys available!"
	case len(picked) == 0:
		step.why = "commits wait for nobody: " + none
	}
	return step, true
}

// growSync: the standby that commits wait for may lead once it has everything.
func (s *State) growSync(picked []events.NodeName, none string) syncStep {
	if len(picked) == 0 {
		return syncStep{why: "no standby is synchronous, and nobody else may lead: " + none}
	}
	if hasName(s.syncKey().Standbys, picked[0]) {
		return syncStep{why: fmt.Sprintf("commits wait for %s, which may lead", picked[0])}
	}
	if ok, why := s.waitedFor(picked[0]); !ok {
		return syncStep{why: why}
	}
	return syncStep{write: true, standbys: picked, why: fmt.Sprintf("%s has everything, and each commit waits for it: it may lead", picked[0]),
		status: "Synchronous standby status assigned to " + listed(picked)}
}

// syncLook is how often: for that long commits may wait for a standby that was killed.
const syncLook = 250 * time.Millisecond

// syncSeeks: the holder looks at its standbys again soon.
func (s *State) syncSeeks() bool { return s.Settings.Sync && s.Phase == Leading && s.primaryUp() }

// syncRules are the holder's work on synchronous mode: the key and the setting, in the
// order that keeps every acknowledged commit on whoever may lead.
func syncRules() []rule {
	said := func(s *State) string {
		if s.Sync.Said != "" {
			return s.Sync.Said
		}
		return leaderStatus(s)
	}
	return []rule{
		{
			id: "sync-key", when: func(s *State) (bool, string) {
				step := s.nextSyncStep()
				return step.write, step.why
			},
			do: func(e *effects) {
				step := e.nextSyncStep()
				e.Sync.Said = step.status
				e.writeSync(step.standbys, step.remove)
			},
			status: said,
		},
		{
			id: "sync-names", when: func(s *State) (bool, string) {
				step := s.nextSyncStep()
				return step.set != nil, step.why
			},
			do: func(e *effects) {
				step := e.nextSyncStep()
				e.Sync.Said = step.status
				e.setSyncNames(*step.set)
			},
			status: said,
		},
	}
}

// claimRule comes before every promotion: the sync key must say that nobody else may
// lead, since what the new primary acknowledges is on no other member yet.
func claimRule(due func(*State) bool) rule {
	return rule{
		id: "claim-sync", when: func(s *State) (bool, string) {
			switch {
			case !s.Settings.Sync:
				return false, "synchronous mode is off"
			case !due(s) || !s.believes():
				return false, "no promotion is due"
			case !s.unclaimed():
				return false, "the sync key says that nobody else may lead"
			case s.Sync.Lost != "":
				return true, "the leader key is ours, and the promotion waits for the sync key: " + s.Sync.Lost
			default:
				return true, "the leader key is ours; before the promotion the sync key must say that nobody else may lead"
			}
		},
		do: func(e *effects) { e.writeSync(nil, false) },
		status: func(s *State) string {
			switch s.Sync.Lost {
			case "":
				return "promoted self to leader by acquiring session lock"
			case syncRefused:
				return "Postponing promotion because synchronous replication state was updated by somebody else"
			default:
				return "Postponing promotion because " + s.Sync.Lost
			}
		},
	}
}

// leavingSyncRule: a synchronous standby that is to be stopped asks to be released first,
// so that no commit waits for it in vain.
func leavingSyncRule() rule {
	return rule{
		id: "leaving-sync", when: func(s *State) (bool, string) { return s.leavesSync() },
		do: func(e *effects) {
			if e.Sync.LeaveUntil == 0 {
				e.Sync.LeaveUntil = e.Now.Add(2 * e.Settings.LoopWait)
			}
		},
		status: func(*State) string { return "Waiting for primary to release us from synchronous standby" },
	}
}

// stopAsked: PostgreSQL is to be stopped by somebody's wish.
func (s *State) stopAsked() bool {
	restart, _ := s.restartAsked()
	return s.Shutdown != "" && !s.paused() || restart || s.Rejoin.Reinit
}

func (s *State) leavesSync() (bool, string) {
	switch k := s.view().Sync; {
	case !s.stopAsked():
		return false, "nobody asked for PostgreSQL to be stopped"
	case !s.Settings.Sync || !hasName(k.Standbys, s.Self):
		return false, "commits don't wait for us"
	case !s.otherLeads() || s.Store.DownSince != 0:
		return false, "nobody could release us from being the synchronous standby"
	case !s.standbyUp():
		return false, "PostgreSQL is not up as a standby"
	case s.Sync.LeaveUntil != 0 && s.Now >= s.Sync.LeaveUntil:
		return false, fmt.Sprintf("%s did not release us from being the synchronous standby in time", s.leader().Name)
	default:
		return true, fmt.Sprintf("commits wait for us; %s is asked to release us before PostgreSQL is stopped", s.leader().Name)
	}
}

// keepSyncLeave ends the wish to be released when the stop that it was for is over.
func (e *effects) keepSyncLeave() {
	if e.Sync.LeaveUntil != 0 && e.Phase == Following && !e.stopAsked() {
		e.Sync.LeaveUntil = 0
	}
}

// syncTags are the tags to be published: with nosync while this standby leaves.
func (s *State) syncTags() events.Tags {
	tags := s.Settings.Tags
	if s.Sync.LeaveUntil == 0 {
		return tags
	}
	all := map[string]json.RawMessage{}
	if len(tags.Raw) > 0 && json.Unmarshal(tags.Raw, &all) != nil {
		return tags // what isn't a mapping is not published either
	}
	all["nosync"] = json.RawMessage("true")
	all["sync_priority"] = json.RawMessage("0")
	if raw, err := json.Marshal(all); err == nil {
		tags.Raw, tags.NoSync = raw, true
	}
	return tags
}
