package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/events/journal"
	"github.com/pgregent/regent/fsm"
	"github.com/pgregent/regent/internal/mono"
	"github.com/pgregent/regent/pgmgr"
)

// Options are what an agent is made of. All fields but Meter, Beat, Admit and Target are needed.
type Options struct {
	Name    events.NodeName
	Scope   string
	Version string
	// Settings turns the dynamic configuration, a JSON mapping or nil when there is
	// none, into the machine's settings and PostgreSQL's configuration.
	Settings func(dynamic []byte, patroniPresent bool) (events.Settings, pgmgr.Config, error)
	Store    dcs.Store
	Postgres *pgmgr.Manager
	Keeper   *Keeper
	// Journal is open, and is run by whoever opened it. Its snapshots come from the
	// agent: see SnapshotSource.
	Journal *journal.Journal
	// DataDir is watched for the end of recovery.
	DataDir string
	Peers   *http.Client
	// Credentials are what members ask of whoever wants more than to look; nil or empty: nothing.
	Credentials func() (username, password string)
	// Resume is the state that the journal remembers; the zero State without one.
	Resume fsm.State
	// Snapshots is where the journal's snapshot callback finds the state.
	Snapshots *SnapshotSource
	Log       *slog.Logger
	// Wall is the clock for people; nil: the machine's. Nothing is decided by it but when
	// what an operator scheduled is due.
	Wall func() time.Time
	// Meter hears of each step; nil is deaf.
	Meter Meter
	// Beat is called by the loop every BeatEvery as a sign of its life, unless that is zero.
	Beat      func()
	BeatEvery time.Duration
	// Admit judges the first linearizable view before the machine gets it; an error
	// ends the agent. Nil admits everything.
	Admit func(context.Context, events.ClusterView) error
	// Target opens the store that a move leads to, by its description, once; nil: there is
	// none. Arrived is the epoch of the move that led to Store; empty: none that is known.
	Target  func(to string) (dcs.Store, error)
	Arrived string
	// KeeperBase is added to the store's revisions before the keeper gets them: what the
	// stores that were left had reached.
	KeeperBase events.Revision
}

// Meter hears of each step: the state that it led to, and how long after the fact's
// arrival. It is called by the loop, so it must return at once.
type Meter interface {
	Stepped(s *fsm.State, took time.Duration)
}

// Agent runs one member. New, then Run, once.
type Agent struct {
	opt     Options
	log     *slog.Logger
	machine *fsm.Machine
	mail    *mailbox
	lane    *lane
	journal recorder
	observe *observer
	health  *storeHealth
	work    sync.WaitGroup // executors under way

	// state is owned by the loop in Run; published is its latest copy for readers.
	state     fsm.State
	published atomic.Pointer[fsm.State]
	changed   atomic.Pointer[chan struct{}]

	// timer is owned by the loop.
	timer     *time.Timer
	timerName string
	timerAt   events.Instant

	answers answers
	exit    *fsm.Exit
	said    string // last status logged
	config  configWatch
	reload  atomic.Bool // the local configuration changed
	// unapplied is a configuration that PostgreSQL could not take yet.
	unapplied atomic.Pointer[pgmgr.Config]
	// due is when what the loop is at had arrived; owned by the loop.
	due       events.Instant
	fatal     chan error    // the first panic of a part, or a refused admission
	admission sync.Once     // of the first view that is acted on
	ended     chan struct{} // closed when the loop has ended
}

// SnapshotSource gives the journal the state before the fact being appended. The
// journal is opened before the agent exists, hence the indirection; it belongs to
// the agent's loop.
type SnapshotSource struct {
	Binary string // hash of this program
	state  *fsm.State
}

// Snapshot encodes the state; null before the agent runs.
func (s *SnapshotSource) Snapshot() json.RawMessage {
	if s.state == nil {
		return nil
	}
	return snapshotOf(*s.state, s.Binary)
}

// ErrExit is wrapped by Run's error when the machine decided to end the agent with
// a failure; its text is for the operator.
var ErrExit = errors.New("the agent ended")

// ErrPanic is wrapped by Run's error when a part of the agent panicked. PostgreSQL is
// left as it is: the keeper's deadline stands, so a primary that no agent takes over
// in time is fenced.
var ErrPanic = errors.New("the agent panicked")

// New returns an agent that has not started yet.
func New(o Options) *Agent {
	if o.Wall == nil {
		o.Wall = time.Now
	}
	a := &Agent{
		opt: o, log: o.Log, machine: fsm.New(), mail: newMailbox(), state: o.Resume,
		answers: answers{waiting: map[string]chan Answer{}},
		fatal:   make(chan error, 1), ended: make(chan struct{}),
	}
	a.lane = newLane()
	a.observe = newObserver(o.Postgres, a.mail, o.Log, a.promotes, a.adoptForeign)
	a.health = &storeHealth{mail: a.mail}
	a.journal.j, a.journal.boot, a.journal.log = o.Journal, mono.BootID(), o.Log
	o.Snapshots.state = &a.state
	ch := make(chan struct{})
	a.changed.Store(&ch)
	// Nobody shall read what the former run believed: its leases are void (S10).
	a.published.Store(&fsm.State{
		Schema: fsm.StateSchema, Self: o.Name, Scope: o.Scope, Version: o.Version, Settings: o.Resume.Settings, Phase: fsm.Init,
	})
	return a
}

// Snapshot returns the latest state. It must not be changed.
func (a *Agent) Snapshot() *fsm.State { return a.published.Load() }

// Changed returns a channel that is closed at the next change of the snapshot. Take
// the channel first, then the snapshot.
func (a *Agent) Changed() <-chan struct{} { return *a.changed.Load() }

// Wait returns when until is true of a snapshot, or ctx ends.
func (a *Agent) Wait(ctx context.Context, until func(*fsm.State) bool) error {
	for {
		ch := a.Changed()
		if until(a.Snapshot()) {
			return nil
		}
		select {
		case <-ch:
		case <-ctx.Done():
			return fmt.Errorf("wait for the agent: %w", context.Cause(ctx))
		}
	}
}

// Submit hands an operator's request or a signal to the machine.
func (a *Agent) Submit(ev events.Event) error { return a.mail.request(ev) }

// Observe looks at PostgreSQL now, for the REST API.
func (a *Agent) Observe(ctx context.Context) (events.PostgresState, error) {
	return a.opt.Postgres.Observe(ctx)
}

// promotes reports whether it is this agent that makes the server a primary.
func (a *Agent) promotes() bool {
	s := a.Snapshot()
	return s.Postgres.Promoted || s.Op != nil && s.Op.Kind == (fsm.Promote{}).Kind()
}

// publish makes the loop's state visible.
func (a *Agent) publish() {
	s := a.state
	a.published.Store(&s)
	next := make(chan struct{})
	close(*a.changed.Swap(&next))
}

// Answer is the end of an operator's request.
type Answer struct {
	OK   bool
	Text string
}

// answers matches requests with the machine's responses.
type answers struct {
	mu      sync.Mutex
	waiting map[string]chan Answer
}

// Ask submits a request and waits for the machine's response to its id.
func (a *Agent) Ask(ctx context.Context, id string, ev events.Event) (Answer, error) {
	ch := make(chan Answer, 1)
	a.answers.mu.Lock()
	a.answers.waiting[id] = ch
	a.answers.mu.Unlock()
	defer func() {
		a.answers.mu.Lock()
		delete(a.answers.waiting, id)
		a.answers.mu.Unlock()
	}()
	if err := a.Submit(ev); err != nil {
		return Answer{}, err
	}
	select {
	case ans := <-ch:
		return ans, nil
	case <-a.ended:
		return Answer{}, fmt.Errorf("wait for the answer to %s: the agent has ended", ev.Kind())
	case <-ctx.Done():
		return Answer{}, fmt.Errorf("wait for the answer to %s: %w", ev.Kind(), context.Cause(ctx))
	}
}

func (r *answers) give(id string, ans Answer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ch, ok := r.waiting[id]; ok {
		ch <- ans
		delete(r.waiting, id)
	}
}
