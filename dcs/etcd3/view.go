package etcd3

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
)

func byKey(a, b dcs.KV) int { return strings.Compare(a.Key, b.Key) }

// mirror is the newest state that this store knows, whether from its watch or by reading.
type mirror struct {
	mu       sync.Mutex // guards the rest
	loaded   bool
	revision events.Revision
	kvs      []dcs.KV // sorted; never changed in place
	// confirmed is when the newest linearizable read was sent whose revision the mirror
	// has reached: nothing that was complete by then is missing. What a single server says
	// of its own copy proves no such thing.
	confirmed events.Instant
	// changed is closed, and replaced, when the content changes.
	changed chan struct{}
}

// install takes in a whole state.
func (m *mirror) install(now snapshot) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.loaded || now.revision > m.revision {
		fresh := !m.loaded || !sameKeys(m.kvs, now.kvs)
		m.loaded, m.revision, m.kvs = true, now.revision, now.kvs
		if fresh {
			m.announce()
		}
	}
	m.confirmed = max(m.confirmed, now.asked)
}

// sameKeys: a key's version changes exactly when the key does.
func sameKeys(a, b []dcs.KV) bool {
	return slices.EqualFunc(a, b, func(x, y dcs.KV) bool { return x.Key == y.Key && x.Version == y.Version })
}

// change is what a watch says of one key.
type change struct {
	kv      dcs.KV
	deleted bool
}

// apply takes in all changes up to a revision. What the mirror has already it leaves out;
// etcd never splits a revision, so it has a revision wholly or not at all.
func (m *mirror) apply(changes []change) {
	m.mu.Lock()
	defer m.mu.Unlock()
	from := m.revision
	kvs := slices.Clone(m.kvs)
	for _, c := range changes {
		if c.kv.Version <= from {
			continue
		}
		i, found := slices.BinarySearchFunc(kvs, c.kv, byKey)
		switch {
		case c.deleted && found:
			kvs = slices.Delete(kvs, i, i+1)
		case c.deleted:
		case found:
			kvs[i] = c.kv
		default:
			kvs = slices.Insert(kvs, i, c.kv)
		}
		m.revision = max(m.revision, c.kv.Version)
	}
	if m.revision > from {
		m.kvs = kvs
		m.announce()
	}
}

func (m *mirror) announce() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// view is the state with its age, whether there is one, and what is closed when it
// changes.
func (m *mirror) view(now events.Instant) (v dcs.View, loaded bool, changed <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v = dcs.View{Revision: m.revision, KVs: slices.Clone(m.kvs), Age: max(0, now.Sub(m.confirmed)), At: now}
	return v, m.loaded, m.changed
}

// View implements dcs.Store. A local view is the mirror, or one server's copy of unknown
// age as long as there is none.
func (s *Store) View(ctx context.Context, c dcs.Consistency) (dcs.View, error) {
	ctx, cancel, err := s.bound(ctx)
	if err != nil {
		return dcs.View{}, fmt.Errorf("view: %w", err)
	}
	defer cancel()
	if c == dcs.Local {
		return s.localView(ctx)
	}
	now, err := s.read(ctx)
	if err != nil {
		return dcs.View{}, fmt.Errorf("view: %w", err)
	}
	at := s.cfg.now()
	return dcs.View{Revision: now.revision, KVs: slices.Clone(now.kvs), Age: at.Sub(now.asked), At: at}, nil
}

func (s *Store) localView(ctx context.Context) (dcs.View, error) {
	s.startFollowing()
	// The time is taken first: the content can only be newer than it claims.
	if v, loaded, _ := s.mirror.view(s.cfg.now()); loaded {
		return v, nil
	}
	r, _, err := hedged(ctx, s, func(ctx context.Context, e *endpoint) (*pb.RangeResponse, error) {
		r, err := s.rangeAt(ctx, e, true)
		return r, asRead(err)
	})
	if err != nil {
		return dcs.View{}, fmt.Errorf("view: %w", err)
	}
	v := dcs.View{Revision: events.Revision(r.Header.Revision), Age: -1, At: s.cfg.now()}
	for _, kv := range r.Kvs {
		v.KVs = append(v.KVs, s.entry(kv))
	}
	slices.SortFunc(v.KVs, byKey)
	return v, nil
}

// Watch implements dcs.Store.
func (s *Store) Watch(ctx context.Context) (<-chan dcs.View, error) {
	out := make(chan dcs.View)
	started := s.calls.Start(func() {
		defer close(out)
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(s.life, cancel)()
		s.feed(ctx, out)
	})
	if !started {
		return nil, fmt.Errorf("watch: %w", errClosed)
	}
	s.startFollowing()
	return out, nil
}

// feed sends the mirror's state at once and after every change. A reader that is slow
// gets the newest when it comes.
func (s *Store) feed(ctx context.Context, out chan<- dcs.View) {
	var sent events.Revision
	for first := true; ; {
		v, loaded, changed := s.mirror.view(s.cfg.now())
		send := out
		if !loaded || (!first && v.Revision == sent) {
			send = nil
		}
		select {
		case send <- v:
			first, sent = false, v.Revision
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}
