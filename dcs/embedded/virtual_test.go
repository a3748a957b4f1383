package embedded

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
)

// The tests in this file run the real store in virtual time: connections are pipes,
// clocks are the bubble's, only the folders are real. Minutes pass in seconds, and
// what they measure doesn't depend on how busy this machine is.

// pipes is a network of in-memory connections.
type pipes struct {
	mu        sync.Mutex
	listeners map[string]*pipeListener
	writes    atomic.Int64 // by dialling ends: requests
}

// counted counts what a dialling end sends.
type counted struct {
	net.Conn
	writes *atomic.Int64
}

func (c counted) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

type pipeListener struct {
	net   *pipes
	addr  string
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (p *pipes) Listen(addr string) (net.Listener, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := &pipeListener{net: p, addr: addr, conns: make(chan net.Conn), done: make(chan struct{})}
	p.listeners[addr] = l
	return l, nil
}

func (p *pipes) Dial(ctx context.Context, addr string) (net.Conn, error) {
	p.mu.Lock()
	l := p.listeners[addr]
	p.mu.Unlock()
	if l == nil {
		return nil, fmt.Errorf("dial %s: nobody listens", addr)
	}
	ours, theirs := net.Pipe()
	select {
	case l.conns <- theirs:
		return counted{ours, &p.writes}, nil
	case <-l.done:
		return nil, fmt.Errorf("dial %s: nobody listens", addr)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return advertised(l.addr) }

// virtual is a cluster in a bubble.
type virtual struct {
	t      *testing.T
	mu     sync.Mutex // guards stores
	net    *pipes
	cfgs   []Config
	stores []*Store
}

func newVirtual(t *testing.T, n int) *virtual {
	began := time.Now()
	network := &pipes{listeners: map[string]*pipeListener{}}
	v := &virtual{t: t, net: network, stores: make([]*Store, n)}
	addr := func(i int) string { return fmt.Sprintf("10.0.0.%d:2380", i+1) }
	for i := range n {
		cfg := Config{
			Name: events.NodeName(fmt.Sprintf("pg%02d", i+1)), SelfAddr: addr(i), DataDir: filepath.Join(t.TempDir(), "raft"),
			Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), network: network,
			now: func() events.Instant { return events.Instant(time.Since(began)) + 1 },
		}
		for j := range n {
			if j != i {
				cfg.PartnerAddrs = append(cfg.PartnerAddrs, addr(j))
			}
		}
		v.cfgs = append(v.cfgs, cfg)
		v.open(i)
	}
	return v
}

func (v *virtual) open(i int) {
	s, err := Open(context.Background(), v.cfgs[i])
	if err != nil {
		v.t.Error(err)
		return
	}
	v.mu.Lock()
	v.stores[i] = s
	v.mu.Unlock()
}

func (v *virtual) close(i int) {
	v.mu.Lock()
	s := v.stores[i]
	v.stores[i] = nil
	v.mu.Unlock()
	if s != nil {
		if err := s.Close(); err != nil {
			v.t.Error(err)
		}
	}
}

func (v *virtual) closeAll() {
	for i := range v.stores {
		v.close(i)
	}
}

// any is a store that runs, node i's if that one does.
func (v *virtual) any(i int) *Store {
	v.mu.Lock()
	defer v.mu.Unlock()
	for n := range v.stores {
		if s := v.stores[(i+n)%len(v.stores)]; s != nil {
			return s
		}
	}
	return nil
}

// leading is the index of the leader, -1 when there is none.
func (v *virtual) leading() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	for i, s := range v.stores {
		if s != nil && s.current() != nil {
			return i
		}
	}
	return -1
}

func TestALeaseEndsOnTimeInVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVirtual(t, 3)
		defer v.closeAll()
		for _, ttl := range []time.Duration{time.Second, 30 * time.Second} {
			began := time.Now()
			lease, err := v.any(0).Grant(t.Context(), "", ttl)
			if err != nil {
				t.Fatal(err)
			}
			granted := time.Now()
			written, err := v.any(1).Commit(t.Context(), dcs.Txn{Writes: []dcs.Write{{Key: "leader", Lease: lease.ID}}})
			if err != nil {
				t.Fatal(err)
			}
			watch, err := v.any(2).Watch(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for view := range watch {
				if _, there := view.Get("leader"); !there && view.Revision > written {
					break
				}
			}
			if lived := time.Since(began); lived < ttl || time.Since(granted) > ttl+50*time.Millisecond {
				t.Errorf("a lease of %v ended %v after it was asked for, %v after it was granted", ttl, lived, time.Since(granted))
			}
		}
	})
}

// A leader that dies together with the holder of a lease must not lengthen the lease by the
// time since the last entry, nor by the election, and must never shorten it.
func TestTheTimeWithoutALeaderCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVirtual(t, 3)
		defer v.closeAll()
		const ttl = 5 * time.Second
		began := time.Now()
		lease, err := v.any(0).Grant(t.Context(), "", ttl)
		if err != nil {
			t.Fatal(err)
		}
		written, err := v.any(0).Commit(t.Context(), dcs.Txn{Writes: []dcs.Write{{Key: "leader", Lease: lease.ID}}})
		if err != nil {
			t.Fatal(err)
		}
		idle := time.Now()
		pause(t.Context(), 3*time.Second)
		leader := v.leading()
		v.close(leader)
		watch, err := v.any(leader + 1).Watch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for view := range watch {
			if _, there := view.Get("leader"); !there && view.Revision >= written {
				break
			}
		}
		if lived := time.Since(began); lived < ttl {
			t.Errorf("the lease of %v ended after %v", ttl, lived)
		}
		if over := time.Since(idle) - ttl; over > 200*time.Millisecond {
			t.Errorf("the lease of %v lived %v longer than without the change of leaders", ttl, over)
		}
	})
}

// A leader that is closed hands on, so that the others don't wait for an election. In
// real time a busy machine holds elections of its own, and writes under way end unknown.
func TestClosingALeaderHandsLeadershipOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVirtual(t, 3)
		defer v.closeAll()
		put := func(i int) {
			t.Helper()
			if _, err := v.any(i).Commit(t.Context(), dcs.Txn{Writes: []dcs.Write{dcs.Put("k", nil)}}); err != nil {
				t.Fatal(err)
			}
		}
		for range 5 {
			put(0)
			pause(t.Context(), time.Second)
			leader := v.leading()
			began := time.Now()
			v.close(leader)
			put(leader + 1)
			if took := time.Since(began); took >= 150*time.Millisecond {
				t.Errorf("closing the leader and the next write took %v, as long as an election", took)
			}
			v.open(leader)
		}
	})
}

// contender wants the leader key, and believes as the holder's side is allowed to (S6).
type contender struct {
	name     string
	holds    bool
	believes time.Time
}

// arena checks that no two contenders believe at the same time.
type arena struct {
	t            *testing.T
	v            *virtual
	mu           sync.Mutex // guards contenders and acquired
	contenders   []*contender
	acquisitions int
}

const (
	arenaTTL    = 2 * time.Second
	arenaMargin = 0.03
)

func (a *arena) update(c *contender, f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
	if !c.holds {
		return
	}
	for _, other := range a.contenders {
		if other != c && other.holds && time.Now().Before(other.believes) && time.Now().Before(c.believes) {
			a.t.Errorf("%s and %s both believe that they lead", c.name, other.name)
		}
	}
}

func (a *arena) run(ctx context.Context, i int) {
	c := a.contenders[i]
	rng := rand.New(rand.NewSource(int64(i)))
	var lease events.LeaseID
	for ctx.Err() == nil {
		if rng.Intn(12) == 0 {
			pause(ctx, time.Duration(rng.Int63n(int64(2*arenaTTL)))) // frozen for a while
		}
		lease = a.turn(ctx, c, i, lease)
		pause(ctx, arenaTTL/8)
	}
}

// turn renews, or gets a lease, and acquires the key when it is free.
func (a *arena) turn(ctx context.Context, c *contender, i int, lease events.LeaseID) events.LeaseID {
	store := a.v.any(i)
	if store == nil {
		return lease
	}
	ctx, cancel := context.WithTimeout(ctx, arenaTTL/4)
	defer cancel()
	asked := time.Now()
	var l dcs.Lease
	var err error
	if lease == "" {
		if l, err = store.Grant(ctx, "", arenaTTL); err != nil {
			return ""
		}
		lease = l.ID
	} else if l, err = store.Renew(ctx, lease); err != nil {
		if dcs.ClassOf(err) == events.Refused {
			a.update(c, func() { c.holds = false })
			return ""
		}
		return lease
	}
	a.update(c, func() {
		c.believes = asked.Add(time.Duration(float64(arenaTTL) * (1 - arenaMargin)))
		// An acquisition whose answer was lost shows in what the lease carries.
		if !c.holds && slices.Contains(l.Keys, dcs.KeyLeader) {
			c.holds = true
			a.acquisitions++
		}
	})
	if c.holds {
		return lease
	}
	_, err = store.Commit(ctx, dcs.Txn{
		Guards: []dcs.Guard{{Key: dcs.KeyLeader, Absent: true}},
		Writes: []dcs.Write{{Key: dcs.KeyLeader, Value: []byte(c.name), Lease: lease}},
	})
	if err == nil {
		a.update(c, func() { c.holds = true; a.acquisitions++ })
	}
	return lease
}

// S6 and S13 on the real store: members freeze, raft leaders come and go, and never do
// two members believe that they lead.
func TestNoTwoMembersBelieveWhileLeadersComeAndGo(t *testing.T) {
	slow(t)
	synctest.Test(t, func(t *testing.T) {
		v := newVirtual(t, 3)
		defer v.closeAll()
		a := &arena{t: t, v: v}
		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
		defer cancel()
		var wg sync.WaitGroup
		for i := range 3 {
			a.contenders = append(a.contenders, &contender{name: fmt.Sprint(i)})
		}
		for i := range 3 {
			wg.Go(func() { a.run(ctx, i) })
		}
		wg.Go(func() {
			rng := rand.New(rand.NewSource(99))
			for pause(ctx, time.Duration(rng.Int63n(int64(5*time.Second)))) {
				if leader := v.leading(); leader >= 0 {
					v.close(leader)
					pause(ctx, time.Duration(rng.Int63n(int64(time.Second))))
					v.open(leader)
				}
			}
		})
		wg.Wait()
		if a.acquisitions < 5 {
			t.Errorf("only %d acquisitions in 90 seconds", a.acquisitions)
		}
		t.Logf("%d acquisitions in 90 virtual seconds", a.acquisitions)
	})
}
