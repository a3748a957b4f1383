package dcs

import (
	"fmt"
	"reflect"

	"github.com/pgregent/regent/events"
)

// A move between stores is written into the "config" key, at regent: {move: …}; see
// docs/decisions/0024-moving-between-stores.md.

const (
	fieldMove       = "move"
	fieldMemberMove = "regent_move"
)

// decodeMove reads what the config key says of a move; nil: nothing. One in a phase that
// this version doesn't know is kept: somebody meant it, and it bars races.
func decodeMove(config KV) *events.StoreMove {
	doc := ofRaw(config.Value).get(fieldRegent).get(fieldMove)
	if doc.kind != mapping {
		return nil
	}
	m := &events.StoreMove{
		Epoch: doc.get("epoch").str(), Phase: events.MovePhase(doc.get("phase").str()), To: doc.get("to").str(),
		By: events.NodeName(doc.get("by").str()), Run: doc.get("run").str(),
	}
	for _, item := range doc.get("members").items {
		m.Members = append(m.Members, events.NodeName(item.str()))
	}
	return m
}

// EncodeMove returns a config key's value with another word about a move; nil takes it out.
// Everything else stays as it is. A value that is no mapping is replaced.
func EncodeMove(config []byte, m *events.StoreMove) []byte {
	doc := ofRaw(config)
	if doc.kind != mapping {
		doc = *object()
	}
	ours := doc.get(fieldRegent)
	if ours.kind != mapping {
		ours = *object()
	}
	ours.remove(fieldMove)
	if m != nil {
		v := object().with("epoch", ofString(m.Epoch)).with("phase", ofString(string(m.Phase)))
		withText(v, "to", m.To)
		if len(m.Members) > 0 {
			list := value{kind: list}
			for _, n := range m.Members {
				list.items = append(list.items, ofString(string(n)))
			}
			v.set("members", list)
		}
		withText(v, "by", string(m.By))
		withText(v, "run", m.Run)
		ours.set(fieldMove, *v)
	}
	if len(ours.keys) == 0 {
		doc.remove(fieldRegent)
	} else {
		doc.set(fieldRegent, ours)
	}
	return doc.bytes()
}

// KeepMove keeps, in a configuration that an operator has written, what the key says of a
// move now: nobody takes that back, or brings it back, by an edit.
func KeepMove(now *events.StoreMove, next []byte) []byte {
	if reflect.DeepEqual(decodeMove(KV{Value: next}), now) {
		return next
	}
	return EncodeMove(next, now)
}

// MarkMove is the transaction that changes what the config key, as it was read, says of a
// move. Further guards may be added.
func MarkMove(config events.DynamicConfig, m *events.StoreMove) Txn {
	return Txn{
		Guards: []Guard{{Key: KeyConfig, Absent: config.Stored() == 0, Version: config.Stored()}},
		Writes: []Write{Put(KeyConfig, EncodeMove(config.Raw, m))},
	}
}

// CopyMove is the transaction that makes the target a copy of the store that decides: its
// config, which says that it is incoming, initialize and history. It is refused when the
// target is another cluster's, or decides something by itself. What the target was before
// is guarded, so that a copy that comes late harms nothing.
func CopyMove(from, target View, epoch string) (Txn, error) {
	old, now := Decode(from), Decode(target)
	switch m := now.Move; {
	case now.Initialize.Version != 0 && now.Initialize.SystemID != old.Initialize.SystemID:
		return Txn{}, fmt.Errorf("copy to the target: %w: it has another cluster (system identifier %q, not %q)",
			ErrRefused, now.Initialize.SystemID, old.Initialize.SystemID)
	case now.Config.Stored() != 0 && !m.Is(events.MoveTarget) && !m.Is(events.MoveIncoming):
		return Txn{}, fmt.Errorf("copy to the target: %w: it has a configuration of its own, and was neither left nor prepared by a move", ErrRefused)
	case now.Leader.Locked() && (!m.Is(events.MoveIncoming) || m.Epoch != epoch):
		return Txn{}, fmt.Errorf("copy to the target: %w: %s leads there", ErrRefused, now.Leader.Name)
	case old.Sync.Leader != "" || synchronous(from):
		// The sync key is changed in the old store without regard to the move (S14).
		return Txn{}, fmt.Errorf("copy to the target: %w: synchronous mode is on", ErrRefused)
	case !old.Initialize.SystemID.Valid():
		return Txn{}, fmt.Errorf("copy to the target: %w: there is no cluster to be copied", ErrRefused)
	}
	m := events.StoreMove{Epoch: epoch, Phase: events.MoveIncoming}
	if old.Move != nil {
		m.To, m.Members = old.Move.To, old.Move.Members
	}
	t := MarkMove(now.Config, &m)
	config, _ := from.Get(KeyConfig)
	t.Writes[0].Value = EncodeMove(config.Value, &m)
	t.Guards = append(t.Guards, Guard{Key: KeyInitialize, Absent: now.Initialize.Version == 0, Version: now.Initialize.Version})
	t.Writes = append(t.Writes, Put(KeyInitialize, EncodeInitialize(old.Initialize.SystemID)))
	if kv, ok := from.Get(KeyHistory); ok {
		t.Writes = append(t.Writes, Put(KeyHistory, kv.Value))
	} else if _, ok := target.Get(KeyHistory); ok {
		t.Writes = append(t.Writes, Write{Key: KeyHistory, Delete: true})
	}
	return t, nil
}

// synchronous reports whether the configuration asks for synchronous mode, of either kind.
func synchronous(v View) bool {
	kv, _ := v.Get(KeyConfig)
	mode := ofRaw(kv.Value).get("synchronous_mode")
	return isOn(mode) || mode.str() == "quorum"
}

// CopyRest is the transaction that copies the last known position and the slots to keep, and
// takes away what an earlier stay has left of wishes and synchronous standbys, as long as the
// target's config is at that version.
func CopyRest(from View, copied events.Revision) Txn {
	t := Txn{
		Guards: []Guard{{Key: KeyConfig, Version: copied}},
		Writes: []Write{{Key: KeyFailover, Delete: true}, {Key: KeySync, Delete: true}},
	}
	if kv, ok := from.Get(KeyStatus); ok {
		t.Writes = append(t.Writes, Put(KeyStatus, kv.Value))
	}
	return t
}
