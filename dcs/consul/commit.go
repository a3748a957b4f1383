package consul

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
)

// Pauses before a transaction that others were faster than is planned anew, doubled from
// the first to the last. They matter only under contention, and let somebody win.
const (
	firstReplan = time.Millisecond
	lastReplan  = 20 * time.Millisecond
)

// Commit implements dcs.Store (safety rules S14 and S15). It reads, judges the guards by what
// it read, and sends one transaction that pins all of that: each key guarded or written must
// still have the index that was read, or still be absent. When others were faster it begins
// again, so an unguarded write always gets through, and a guard is refused only by a
// linearizable view.
func (s *Store) Commit(ctx context.Context, t dcs.Txn) (events.Revision, error) {
	if err := t.Validate(); err != nil {
		return 0, err
	}
	for pause := firstReplan; ; pause = min(2*pause, lastReplan) {
		v, ops, err := s.judge(ctx, t)
		if err != nil {
			return 0, err // nothing was sent that changes anything
		}
		if !changes(ops) {
			return v.Revision, nil // there was nothing to delete
		}
		rev, again, err := s.transact(ctx, ops, t)
		if err == nil && !again {
			s.announce(t)
		}
		if !again {
			return rev, err
		}
		rest(ctx, pause)
	}
}

// judge reads and plans. A consistent read is enough for a plan, which is pinned. What would
// be final, that a guard fails or that there is nothing to do, is looked at again.
func (s *Store) judge(ctx context.Context, t dcs.Txn) (dcs.View, api.TxnOps, error) {
	v, err := s.read(ctx, "commit")
	if err != nil {
		return v, nil, err
	}
	if ops, err := s.plan(v, t); err == nil && changes(ops) {
		return v, ops, nil
	}
	if v, err = s.View(ctx, dcs.Linearizable); err != nil {
		return v, nil, err
	}
	ops, err := s.plan(v, t)
	return v, ops, err
}

// announce passes the member's own key on to the catalogue of services.
func (s *Store) announce(t dcs.Txn) {
	for _, w := range t.Writes {
		if s.service != nil && w.Key == dcs.MemberKey(s.cfg.Name) && !w.Delete {
			s.service.publish(w.Value)
		}
	}
}

// plan translates a transaction, given what was read. Its error is ErrRefused: a guard fails.
func (s *Store) plan(v dcs.View, t dcs.Txn) (api.TxnOps, error) {
	var ops api.TxnOps
	add := func(verb api.KVOp, key string, change func(*api.KVTxnOp)) {
		op := &api.KVTxnOp{Verb: verb, Key: s.base + key}
		if change != nil {
			change(op)
		}
		ops = append(ops, &api.TxnOp{KV: op})
	}
	var pinned []string
	pin := func(key string) {
		if slices.Contains(pinned, key) {
			return
		}
		pinned = append(pinned, key)
		if kv, found := v.Get(key); found {
			add(api.KVCheckIndex, key, func(op *api.KVTxnOp) { op.Index = uint64(kv.Version) })
		} else {
			add(api.KVCheckNotExists, key, nil)
		}
	}
	for _, g := range t.Guards {
		kv, found := v.Get(g.Key)
		if !g.Holds(kv, found) {
			return nil, fmt.Errorf("commit: guard on %s: %w", g.Key, dcs.ErrRefused)
		}
		pin(g.Key)
	}
	for _, w := range t.Writes {
		if !w.Delete && w.Lease != "" && !isSession(w.Lease) {
			return nil, fmt.Errorf("commit: write of %s: %w: %q is no session", w.Key, dcs.ErrRefused, w.Lease)
		}
		pin(w.Key)
	}
	for _, w := range t.Writes {
		kv, found := v.Get(w.Key)
		steps(kv, found, w, add)
	}
	return ops, nil
}

// steps adds what one write needs, given the key as it is. The last of them that stores
// something stores it at the transaction's index, whatever was there before.
func steps(kv dcs.KV, found bool, w dcs.Write, add func(api.KVOp, string, func(*api.KVTxnOp))) {
	// Consul leaves a key and its index alone that gets the bytes it has. Another value in
	// between, which nobody ever sees, makes it a change; and so it makes a deletion one
	// that says at which index it happened.
	touch := func() {
		add(api.KVSet, w.Key, func(op *api.KVTxnOp) { op.Value = append(slices.Clone(kv.Value), '~') })
	}
	put := func(verb api.KVOp, session events.LeaseID) {
		add(verb, w.Key, func(op *api.KVTxnOp) { op.Value, op.Session = w.Value, string(session) })
	}
	switch {
	case w.Delete && !found:
	case w.Delete:
		touch()
		add(api.KVDelete, w.Key, nil)
	case w.Lease == "" && kv.Lease != "": // setting it would leave it attached
		put(api.KVUnlock, kv.Lease)
	case w.Lease == "":
		if found {
			touch()
		}
		put(api.KVSet, "")
	case kv.Lease != "" && kv.Lease != w.Lease: // nobody may lock what is another's
		put(api.KVUnlock, kv.Lease)
		put(api.KVLock, w.Lease)
	default:
		if found {
			touch()
		}
		put(api.KVLock, w.Lease)
	}
}

// transact sends a transaction and looks at each result. again: it did nothing, because what
// was read is no longer so.
func (s *Store) transact(ctx context.Context, ops api.TxnOps, t dcs.Txn) (rev events.Revision, again bool, err error) {
	if err := s.alive(ctx, "commit"); err != nil {
		return 0, false, err
	}
	ctx, cancel := s.call(ctx)
	defer cancel()
	done, answer, _, err := s.client.Txn().Txn(ops, s.query(ctx))
	if err != nil {
		return 0, false, classify("commit", writes, err)
	}
	if !done {
		again, err := refusal(answer.Errors, ops)
		return 0, again, err
	}
	rev, err = committedAt(answer.Results, ops)
	if err != nil {
		return 0, false, fmt.Errorf("commit of %s: %w: %w", t.Writes[0].Key, dcs.ErrUnknown, err)
	}
	s.seen.note(rev)
	return rev, false, nil
}

// refusal says what a transaction that was rolled back means.
func refusal(errs api.TxnErrors, ops api.TxnOps) (again bool, err error) {
	var lease, other string
	for _, e := range errs {
		switch {
		case contains(e.What, "Permission denied"):
			return false, book.On(fmt.Errorf("commit: %w: %s", dcs.ErrBroken, e.What))
		case e.OpIndex >= 0 && e.OpIndex < len(ops) && isPin(ops[e.OpIndex].KV.Verb):
			again = true
		case contains(e.What, "lock delay", "lock is already held", "lock isn't held"):
			again = true // it will be free, or a pin says more
		case contains(e.What, "invalid session", "session lookup"):
			lease = e.What
		default:
			other = e.What
		}
	}
	switch {
	case again:
		return true, nil
	case lease != "":
		return false, fmt.Errorf("commit: %w: %s", dcs.ErrRefused, lease)
	default:
		return false, fmt.Errorf("commit: %w: rolled back: %s", dcs.ErrUnavailable, other)
	}
}

// changes reports whether a plan does more than pin.
func changes(ops api.TxnOps) bool {
	return slices.ContainsFunc(ops, func(op *api.TxnOp) bool { return !isPin(op.KV.Verb) })
}

func isPin(verb api.KVOp) bool { return verb == api.KVCheckIndex || verb == api.KVCheckNotExists }

// committedAt checks that each write was stored, and all at one index.
func committedAt(results api.TxnResults, ops api.TxnOps) (events.Revision, error) {
	var rev uint64
	stored := map[string]uint64{}
	for _, r := range results {
		if r.KV != nil {
			stored[r.KV.Key] = max(stored[r.KV.Key], r.KV.ModifyIndex)
			rev = max(rev, r.KV.ModifyIndex)
		}
	}
	for _, op := range ops {
		if kv := op.KV; !isPin(kv.Verb) && (stored[kv.Key] != rev || rev == 0) {
			return 0, fmt.Errorf("the answer says nothing of %s, stored at %d, in a transaction at %d", kv.Key, stored[kv.Key], rev)
		}
	}
	return events.Revision(rev), nil
}

// isSession reports whether an id has the form of Consul's sessions. There is no lease of
// another form, and servers say of such a one what they say of their own failures.
func isSession(id events.LeaseID) bool {
	parts := strings.Split(string(id), "-")
	if len(parts) != 5 {
		return false
	}
	for i, n := range []int{8, 4, 4, 4, 12} {
		if len(parts[i]) != n || strings.Trim(parts[i], "0123456789abcdefABCDEF") != "" {
			return false
		}
	}
	return true
}
