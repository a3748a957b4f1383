package agent

import (
	"context"
	"log/slog"
	"time"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/internal/mono"
	"github.com/pgregent/regent/pgmgr"
)

// observer looks at PostgreSQL when it is asked to. Requests that come while it
// looks are one more look.
type observer struct {
	pg *pgmgr.Manager
	// commanded tells whether the machine has ordered the server's promotion.
	commanded func() bool
	// adopt takes a server in charge that the keeper doesn't know (S5).
	adopt  func(context.Context)
	mail   *mailbox
	log    *slog.Logger
	asked  chan struct{}
	looked chan events.PostgresState // for the recovery watch; latest only
	last   events.PostgresState      // owned by run
}

func newObserver(
	pg *pgmgr.Manager, mail *mailbox, log *slog.Logger, commanded func() bool, adopt func(context.Context),
) *observer {
	return &observer{
		pg: pg, commanded: commanded, adopt: adopt, mail: mail, log: log,
		asked: make(chan struct{}, 1), looked: make(chan events.PostgresState, 1),
	}
}

// kick asks for a look; it never blocks.
func (o *observer) kick() {
	select {
	case o.asked <- struct{}{}:
	default:
	}
}

func (o *observer) run(ctx context.Context) {
	defer func() {
		polite, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		o.pg.Close(polite)
	}()
	for {
		select {
		case <-ctx.Done():
			return
		case <-o.asked:
			o.look(ctx)
		}
	}
}

func (o *observer) look(ctx context.Context) {
	began := mono.Now()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	st, err := o.pg.Observe(ctx)
	if err != nil {
		if ctx.Err() == nil {
			o.log.Debug("PostgreSQL could not be observed", "err", err)
		}
		return
	}
	if st.Running {
		o.adopt(ctx)
	}
	o.edges(st)
	o.last = st
	o.mail.put(events.PostgresObserved{State: st, Began: began})
	select {
	case <-o.looked: // nobody took the one before
	default:
	}
	o.looked <- st
}

// edges are what changed between two looks at the same server.
func (o *observer) edges(st events.PostgresState) {
	was := o.last
	if !was.Ready || !st.Ready || was.PID != st.PID {
		return
	}
	if was.InRecovery && !st.InRecovery && !o.commanded() {
		o.mail.put(events.UnexpectedPrimary{Timeline: st.Timeline})
	}
	if was.Streaming && !st.Streaming && st.InRecovery {
		o.mail.put(events.WalReceiverEnded{Upstream: was.Upstream})
	}
	for _, s := range was.Standbys {
		if s.SyncState != "sync" && s.SyncState != "quorum" {
			continue
		}
		if !connected(st.Standbys, s.Name) {
			o.mail.put(events.SyncLost{Standby: s.Name, Mode: s.SyncState})
		}
	}
}

func connected(list []events.StandbyState, name events.NodeName) bool {
	for _, s := range list {
		if s.Name == name {
			return true
		}
	}
	return false
}
