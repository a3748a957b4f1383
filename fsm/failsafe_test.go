package fsm

import (
	"testing"
	"time"

	"github.com/pgregent/regent/events"
)

// The belief ends with the later of lease and promises; but the lease in a move's target
// binds whatever the members of the old store have promised (ADR 0024, M2).
func TestTheBeliefEndsWithTheLaterOfLeaseAndPromises(t *testing.T) {
	const ttl = 10 * time.Second
	at := func(d time.Duration) events.Instant { return events.Instant(100 * time.Second).Add(d) }
	for name, tc := range map[string]struct {
		change func(*State)
		end    events.Instant
	}{
		"the lease":                            {func(*State) {}, at(9700 * time.Millisecond)},
		"promises":                             {func(s *State) { s.Failsafe.Until = at(20 * time.Second) }, at(20 * time.Second)},
		"old promises":                         {func(s *State) { s.Failsafe.Until = at(time.Second) }, at(9700 * time.Millisecond)},
		"promises alone":                       {func(s *State) { s.Lease, s.Failsafe.Until = Lease{}, at(20*time.Second) }, at(20 * time.Second)},
		"promises to one who isn't the holder": {func(s *State) { s.Holder, s.Failsafe.Until = Holder{}, at(20*time.Second) }, at(9700 * time.Millisecond)},
		"promises, and the target may decide": {func(s *State) {
			s.Failsafe.Until = at(20 * time.Second)
			s.Move = MoveWork{Lease: "T", TTL: ttl, Sent: at(2 * time.Second), Switch: 7}
		}, at(11700 * time.Millisecond)},
	} {
		s := State{
			Now: at(time.Second), Settings: events.Settings{TTL: ttl}, Holder: Holder{Revision: 5},
			Lease: Lease{ID: "L", TTL: ttl, Trust: ttl, Sent: at(0)},
		}
		tc.change(&s)
		if got := s.beliefEnd(); got != tc.end {
			t.Errorf("%s: the belief ends at %s, not %s", name, got.Sub(at(0)), tc.end.Sub(at(0)))
		}
	}
}

// What a promise is worth never exceeds what was promised: the holder reckons from before it
// asked, the member from when it was asked, and for no shorter time.
func TestPromisesOutliveWhatIsBelievedByThem(t *testing.T) {
	m := New()
	for _, ttls := range [][2]time.Duration{{10 * time.Second, 10 * time.Second}, {30 * time.Second, 5 * time.Second}, {5 * time.Second, 30 * time.Second}} {
		holder := State{
			Now: 1, Self: "a", Phase: Leading, Settings: events.Settings{TTL: ttls[0], LoopWait: time.Second, Failsafe: true},
			Holder: Holder{Revision: 5}, Lease: Lease{ID: "L", TTL: ttls[0], Trust: ttls[0], Sent: 1},
		}
		holder.Store.View.Revision = 5
		holder.Store.View.Failsafe = events.Failsafe{Version: 4, Members: []events.FailsafeMember{{Name: "a"}, {Name: "b"}}}
		member := State{Now: 1, Self: "b", Phase: Following, Settings: events.Settings{TTL: ttls[1], LoopWait: time.Second, Failsafe: true}}
		member.Postgres.Known = true
		member.Postgres.State = events.PostgresState{Running: true, Ready: true, InRecovery: true}

		e := &effects{State: &holder, entry: events.Entry{Seq: 1}}
		holder.Now = holder.askAt()
		e.keepFailsafe()
		ask, ok := e.out[0].Action.(AskFailsafe)
		if !ok {
			t.Fatalf("ordered %+v", e.out)
		}
		// Both clocks show the same; the question takes a while.
		at := holder.Now.Add(20 * time.Millisecond)
		member, _ = m.Step(member, events.Entry{Seq: 1, At: at, Event: events.FailsafeAsked{ID: "q", From: "a", TTL: ask.TTL}})
		e.Now = at
		e.absorbAnswer(events.FailsafeAnswered{ID: e.out[0].ID, Member: "b", Accepted: true})
		if holder.Failsafe.Until == 0 || holder.beliefEnd() >= member.Failsafe.Promise.Until {
			t.Errorf("ttl %v: believed until %d, promised until %d", ttls, holder.beliefEnd(), member.Failsafe.Promise.Until)
		}
	}
}
