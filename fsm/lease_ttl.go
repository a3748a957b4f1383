package fsm

import (
	"github.com/pgregent/regent/events"
)

// A lease keeps the ttl it was granted with, so a changed ttl takes a new lease.
// The holder moves its leader key over in one guarded transaction before it lets
// the old lease go; until the outcome is known, belief rests on both.
//
// A shorter ttl needs care: the keeper's deadline can't be taken back, and once the
// key hangs on the new lease others may lead when that one ends, even if the agent
// dies in between. So the belief first shrinks with the renewals of the old lease
// (Lease.Trust), and the key is moved only when the keeper's deadline lies within
// what the new lease is good for.

// changeTTL gets a lease of the new ttl, when nothing else is going on.
func (e *effects) changeTTL() {
	if e.Lease.Next != nil {
		e.moveLease()
		return
	}
	calm := e.Phase == Following ||
		e.Phase == Leading && e.Lease.trust() <= e.Settings.TTL && e.Keeper.Sent <= e.beliefEnd()
	if calm && e.Lease.Asked != e.Settings.TTL && e.Now >= e.Lease.GrantAfter && e.leader().Name != "" {
		e.once(GrantLease{TTL: e.Settings.TTL})
	}
}

// moveLease puts the new lease in the place of the old one.
func (e *effects) moveLease() {
	next := *e.Lease.Next
	switch l := e.leader(); {
	case l.Name == e.Self && l.Lease == next.ID && e.Store.View.Revision >= e.Store.Floor:
		e.adoptNext(l.Version)
	case !e.holds() && l.Name != e.Self:
		e.adoptNext(0)
	case e.InFlight(HandOver{}):
	case e.Keeper.Sent > next.Sent.Add(events.Belief(next.trust())) || e.Now >= next.Sent.Add(events.Belief(next.trust())/2):
		// Not in time. The new lease goes first, so that the key can't follow it.
		e.once(RevokeLease{Lease: next.ID})
	case e.believes() && e.Phase == Leading:
		e.Lease.Moving = true
		e.once(HandOver{To: e.Self, ToLease: next.ID, Lease: e.Lease.ID, Optime: e.pg().Position, Config: e.view().Config.Stored()})
	}
}

// adoptNext makes the new lease the one that counts. rev is the leader key's
// version when the key hangs on it, 0 when this member doesn't hold it.
func (e *effects) adoptNext(rev events.Revision) {
	old := e.Lease.ID
	next := *e.Lease.Next
	next.Void, next.Leads = e.Lease.Void, rev != 0
	e.Lease = next
	if rev != 0 {
		since := e.Holder.Since
		e.gain(rev)
		e.Holder.Since = max(since, e.Holder.Since)
		e.extendFence()
	}
	e.Publish = Published{}
	e.order(RevokeLease{Lease: old})
}

// outcomeMove: the leader key was moved to the new lease, or not. What is not known
// is read; moveLease goes on from there.
func (e *effects) outcomeMove(ev events.ActionFinished) {
	if e.Lease.Next == nil {
		return
	}
	switch ev.Class {
	case events.Done:
		e.adoptNext(ev.Result.Revision)
	case events.Refused:
		e.order(RevokeLease{Lease: e.Lease.Next.ID})
		e.Lease.Next, e.Lease.Moving = nil, false
		e.Lease.GrantAfter = e.Now.Add(e.Settings.LoopWait)
	default:
		e.refresh()
	}
}
