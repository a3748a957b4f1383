package pgmgr

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/pgmgr/keeper"
)

// identifyTimeout bounds the extra question for a standby's timeline.
const identifyTimeout = time.Second

// Observe looks at the data directory, the keeper and, if a server runs, asks it
// one question over a kept connection. It takes at most about six seconds (a hung
// server), usually a few milliseconds, and changes nothing.
//
// A server that doesn't answer is no error: Running without Ready, and Why says
// what is known. The error is for the keeper not answering; then Running is what
// the process table shows, and everything else is as observed.
//
// A server in the data directory that the keeper doesn't know is reported as
// Running with its PID; the keeper can adopt it (S5).
func (m *Manager) Observe(ctx context.Context) (events.PostgresState, error) {
	st := events.PostgresState{Data: m.observeData(ctx)}
	ks, err := m.pm.Status(ctx)
	st.Running, st.PID = ks.Alive, ks.PID
	if w := ks.Watchdog; w != nil && w.Mode == keeper.WatchdogRequired && !w.Active {
		st.Watchdog = w.Problem
	}
	if st.PID == 0 {
		st.PID = m.strangerPID(ks)
		st.Running = st.Running || st.PID != 0
	}
	switch x := ks.LastExit; {
	case st.Running:
		m.observeServer(ctx, &st)
	case x != nil:
		st.Ended = &events.PostgresDown{PID: x.PID, Code: x.Code, Signal: x.Signal, Ours: x.Ours, Fenced: x.Fenced}
	}
	return st, fromKeeper("observe PostgreSQL", err)
}

// strangerPID is the postmaster that the keeper isn't in charge of, as the keeper sees
// it or, when it doesn't answer, as the process table and the pid file show it.
func (m *Manager) strangerPID(ks keeper.Status) int {
	if ks.Foreign != 0 {
		return ks.Foreign
	}
	return m.foreignPostmaster()
}

// observeServer fills in what the server itself says.
func (m *Manager) observeServer(ctx context.Context, st *events.PostgresState) {
	cfg := m.config()
	r, err := m.monitor.ask(ctx, cfg)
	if err != nil {
		st.Why = whyNotReady(err)
		return
	}
	st.Ready = true
	st.InRecovery = r.Recovering
	st.CheckpointTimeline = r.CheckpointTimeline
	st.ServerVersion, st.StartedAt = r.Version, r.StartedAt
	pending := m.monitor.pendingChanges().and(m.raisedNow())
	st.PendingRestart, st.PendingReason = len(pending) > 0, pending.document()
	st.ClientBackends = r.Clients
	for _, s := range r.Standbys {
		st.Standbys = append(st.Standbys, events.StandbyState{
			User: deref(s.User), Name: s.Name, Addr: deref(s.Addr), State: deref(s.State),
			Flushed: events.LSN(s.Flushed), SyncState: deref(s.SyncState), SyncPriority: deref(s.SyncPriority),
		})
	}
	for _, s := range r.Slots {
		st.Slots = append(st.Slots, events.SlotState{
			Name: s.Name, Type: s.Type, Active: s.Active, RestartLSN: events.LSN(s.RestartLSN),
		})
	}
	if !r.Recovering {
		st.Position = events.LSN(r.Flushed)
		st.Timeline = parseTimelineHex(deref(r.TimelineHex))
		st.SyncNames, st.SyncHeld = r.SyncNames, deref(r.SyncHeld) == "on"
		return
	}
	st.Received, st.Replayed = events.LSN(r.Received), events.LSN(r.Replayed)
	st.ReplayPaused, st.ReplayedAt = deref(r.ReplayPaused), deref(r.ReplayedAt)
	st.ConfiguredUpstream = hostPort(r.Conninfo)
	if r.Receiver != nil {
		st.Upstream, st.Streaming = hostPort(deref(r.Receiver.Conninfo)), r.Receiver.Status == "streaming"
	}
	st.Timeline = m.standbyTimeline(ctx, cfg, r)
}

// standbyTimeline finds the timeline of a standby. Only one that has received
// nothing since its start is asked a second question, for the timeline it has
// replayed to: no SQL function tells that.
func (m *Manager) standbyTimeline(ctx context.Context, cfg Config, r monitorRow) events.Timeline {
	tl, known := m.monitor.timelineOf(r)
	if known {
		return tl
	}
	id, err := m.identifyLocal(ctx, cfg)
	if err != nil {
		m.log.Debug("the standby's replayed timeline is taken from the control file", "err", err)
		return tl
	}
	m.monitor.learn(id.timeline)
	return max(tl, id.timeline)
}

// identifyLocal asks this host's server over a replication connection.
func (m *Manager) identifyLocal(ctx context.Context, cfg Config) (identity, error) {
	ctx, cancel := context.WithTimeout(ctx, identifyTimeout)
	defer cancel()
	s := cfg.local(appMonitor)
	s.replication = true
	conn, err := s.connect(ctx)
	if err != nil {
		s.as = cfg.Replication
		if conn, err = s.connect(ctx); err != nil {
			return identity{}, fmt.Errorf("connect for replication: %w", err)
		}
	}
	defer hangUp(conn)
	return identifySystem(ctx, conn)
}

// parseTimelineHex reads the timeline in front of a WAL file's name; 0 if unreadable.
func parseTimelineHex(s string) events.Timeline {
	n, err := strconv.ParseUint(s, 16, 32)
	if err != nil {
		return 0
	}
	return events.Timeline(n)
}

// deref is the value behind p, zero for nil.
func deref[T any](p *T) T {
	var zero T
	if p == nil {
		return zero
	}
	return *p
}
