package fsm

import (
	"github.com/pgregent/regent/events"
)

// A lease keeps the ttl it was granted with, so a changed ttl takes a new lease.
// The holder moves its leader key over in one guarded transaction before it lets
// the old lease go; until the outcome is known, belief rests on the old one.

// changeTTL gets a lease of the new ttl, when nothing else is going on.
func (e *effects) changeTTL() {
	if e.Lease.Next != nil {
		e.moveLease()
		return
	}
	calm := e.Phase == Following || e.Phase == Leading
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
	case e.believes() && e.Phase == Leading:
		e.once(HandOver{To: e.Self, ToLease: next.ID, Lease: e.Lease.ID, Optime: e.pg().Position})
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
		e.Lease.Next = nil
		e.Lease.GrantAfter = e.Now.Add(e.Settings.LoopWait)
	default:
		e.refresh()
	}
}
