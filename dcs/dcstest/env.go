package dcstest

import (
	"context"
	"fmt"
	"time"

	"github.com/pgregent/regent/dcs"
)

// Env is a backend under test: one store, reached in several ways.
type Env struct {
	// Backend is the column's head in the table.
	Backend string
	// Stores are two or more clients of one store, of every kind there is. They stay
	// open for the whole suite; whoever made the Env closes them.
	Stores []dcs.Store
	// Homes says for each of Stores on which server it depends: while that one is down,
	// stands still or is cut off, the client is of no use. AnyServer: it finds another.
	// Nil: AnyServer for all.
	Homes []int
	// Open makes one more client, which the suite closes.
	Open func() (dcs.Store, error)
	// Elsewhere makes a client of another cluster that keeps its keys on the same
	// servers. Nil: the backend's servers serve one cluster; NoElsewhere says so.
	Elsewhere   func() (dcs.Store, error)
	NoElsewhere string
	// Bounds are what the backend promises on this machine.
	Bounds
	// ChosenIDs says that Grant takes the caller's id.
	ChosenIDs bool
	// Spared are the kinds of faults that the random workload leaves out, with the reason: the
	// backend is known to break a promise then. The table says so.
	Spared map[Kind]string
	// Faults is what can be done to it.
	Faults Faults
}

// AnyServer is the home of a client that has none.
const AnyServer = -1

// Bounds of a backend's times. Lower ones test more; ones that a busy machine breaks
// test the machine.
type Bounds struct {
	// TTL is the shortest lease that the backend grants reliably.
	TTL time.Duration
	// Late is how much later than its TTL a lease may end in a healthy store.
	Late time.Duration
	// LateAfterFault is the same when a server was lost in between, counted from the
	// later of the lease's end and the moment when a majority works together again.
	// It holds for the store's own arithmetic too: etcd starts leases anew when its
	// leader changes.
	LateAfterFault time.Duration
	// Failover is how long the store may be out of service after one server was lost.
	Failover time.Duration
	// Overrun is how much later than its context's deadline a call may return.
	Overrun time.Duration
	// Transit is how long a word of the quorum may be on its way to a client, by which
	// local views may be older than they say.
	Transit time.Duration
	// Patience bounds every wait for something that must happen; 20 s when zero.
	Patience time.Duration
	// Storm is how long the random workload under faults lasts; 4 s when zero.
	Storm time.Duration
}

// Kind of fault.
type Kind string

// The kinds of faults. The target of the first three is a server, of the next two a
// client (an index of Env.Stores); the last has none.
const (
	// KillServer ends it at once, and starts it again on the same disk when healed.
	KillServer Kind = "kill a server"
	// PauseServer lets it stand still, as SIGSTOP does: connections stay, what arrives
	// waits, clocks go on.
	PauseServer Kind = "pause a server"
	// IsolateServer cuts it off from the other servers and from clients that aren't
	// at home there.
	IsolateServer Kind = "isolate a server"
	// CutClient breaks the client's connections; new ones don't come about.
	CutClient Kind = "cut a client"
	// LoseReplies lets what the client sends arrive, and no answer come back.
	LoseReplies Kind = "lose replies"
	// Compact lets the store forget its past, so that nobody can catch up by
	// reading it. Healing does nothing.
	Compact Kind = "compact"
)

// Faults is what a harness can do to its backend. Methods are called from one goroutine
// at a time, and one fault of a target is healed before the next begins.
type Faults interface {
	// Servers is how many take part. A majority of them must be up and in touch.
	Servers() int
	// Leader waits until a server leads, and returns it. For a backend without leader
	// any server is one.
	Leader(ctx context.Context) (int, error)
	// Lacks returns why the harness can't make faults of this kind, or "".
	Lacks(k Kind) string
	// Inflict makes it happen before it returns. heal undoes it, and doesn't wait for
	// the store to recover.
	Inflict(k Kind, target int) (heal func() error, err error)
}

// withDefaults also refuses an Env that would test nothing.
func (e Env) withDefaults() (Env, error) {
	if len(e.Stores) < 2 || e.Open == nil || e.Faults == nil || e.TTL <= 0 || e.Failover <= 0 ||
		(e.Homes != nil && len(e.Homes) != len(e.Stores)) || (e.Elsewhere == nil) == (e.NoElsewhere == "") {
		return e, fmt.Errorf("conformance of %q: %w: stores, homes, open, elsewhere, bounds or faults are missing",
			e.Backend, dcs.ErrBroken)
	}
	if e.Homes == nil {
		for range e.Stores {
			e.Homes = append(e.Homes, AnyServer)
		}
	}
	if e.Patience == 0 {
		e.Patience = 20 * time.Second
	}
	if e.Storm == 0 {
		e.Storm = 4 * time.Second
	}
	return e, nil
}
