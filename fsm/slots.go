package fsm

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgregent/regent/events"
)

// SlotName is the replication slot that a member of that name streams through:
// Patroni's rule, since slots are shared with Patroni members.
func SlotName(n events.NodeName) string {
	var b strings.Builder
	for _, r := range strings.ToLower(string(n)) {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '_':
			b.WriteRune(r)
		case r == '-', r == '.':
			b.WriteByte('_')
		default:
			fmt.Fprintf(&b, "u%04d", r)
		}
	}
	out := b.String()
	return out[:min(len(out), 63)]
}

// keepSlots keeps one slot for every other member, and keeps that of a member that
// vanished for member_slots_ttl, so that it finds its WAL when it comes back.
func (e *effects) keepSlots() {
	if !e.Settings.UseSlots {
		return
	}
	seen := slices.Clone(e.Slots)
	for _, m := range e.view().Members {
		if m.Name == e.Self || m.Tags.NoStream {
			continue
		}
		name := SlotName(m.Name)
		i := slices.IndexFunc(seen, func(s SlotSeen) bool { return s.Name == name })
		if i < 0 {
			seen = append(seen, SlotSeen{Name: name, At: e.Now})
		} else if e.Now >= seen[i].At {
			seen[i].At = e.Now
		}
	}
	there := func(name string) bool {
		return slices.ContainsFunc(e.pg().Slots, func(have events.SlotState) bool { return have.Name == name })
	}
	// One whose time is over is remembered until it is seen to be gone: a slot that
	// nobody drops keeps WAL until the disk is full.
	old := func(s SlotSeen) bool { return e.Now.Sub(s.At) > e.Settings.MemberSlotsTTL }
	seen = slices.DeleteFunc(seen, func(s SlotSeen) bool { return old(s) && !there(s.Name) })
	slices.SortFunc(seen, func(a, b SlotSeen) int { return strings.Compare(a.Name, b.Name) })
	e.Slots = seen
	var drop []string
	var missing bool
	want := make([]string, 0, len(seen))
	for _, s := range seen {
		if old(s) {
			if !e.Settings.Pause {
				drop = append(drop, s.Name)
			}
			continue
		}
		want = append(want, s.Name)
		missing = missing || !there(s.Name)
	}
	if (missing || len(drop) > 0) && e.Now >= e.Postgres.SlotsAgain {
		e.once(SyncSlots{Want: want, Drop: drop})
	}
}

// outcomeSlots: a member that comes now is not to wait a heartbeat for its slot.
func (e *effects) outcomeSlots(done bool) {
	again := e.Settings.LoopWait
	if done {
		again = min(again, time.Second)
	}
	e.Postgres.SlotsAgain = e.Now.Add(again)
	e.order(ObservePostgres{})
}

// retained are the slots that the holder keeps, as published in the status key.
func (s *State) retained() []string {
	out := []string{SlotName(s.Self)}
	for _, seen := range s.Slots {
		out = append(out, seen.Name)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// slotPositions are the slots' positions for the status key, the holder's own included.
func (s *State) slotPositions() []SlotPosition {
	out := []SlotPosition{{Name: SlotName(s.Self), LSN: s.pg().Position}}
	for _, have := range s.pg().Slots {
		if have.RestartLSN != 0 {
			out = append(out, SlotPosition{Name: have.Name, LSN: have.RestartLSN})
		}
	}
	slices.SortFunc(out, func(a, b SlotPosition) int { return strings.Compare(a.Name, b.Name) })
	return out
}
