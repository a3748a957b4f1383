package fsm

import (
	"fmt"
	"time"

	"github.com/pgregent/regent/events"
)

// branch is a timeline: two servers that promote at once make two with one number.
type branch struct {
	number events.Timeline
	parent *branch
	fork   events.LSN // where it left its parent
}

// server is a PostgreSQL with its keeper.
type server struct {
	node      *node
	data      bool
	system    events.SystemID
	branch    *branch
	lsn       events.LSN
	signal    bool // standby.signal
	running   bool
	ready     bool
	recovery  bool
	upstream  *events.Upstream
	streaming bool
	pid       int
	armed     Fence
	waived    *Disarm // why it runs without a deadline
	promoted  events.Instant
	names     events.SyncNames // synchronous_standby_names, as in force
	acked     events.LSN       // up to where clients were told that their commits are safe
	slow      events.Instant   // its stream stands still until then
	rogue     events.Instant   // promoted by nobody who may
}

func (p *server) String() string {
	tl := events.Timeline(0)
	if p.branch != nil {
		tl = p.branch.number
	}
	return fmt.Sprintf("running=%v recovery=%v tl=%d lsn=%d streaming=%v from=%v fence=%s", p.running, p.recovery, tl, p.lsn,
		p.streaming, p.upstream, time.Duration(p.armed.Deadline))
}

// close is the clean part of a stop: the last record is written, and connected standbys
// get everything.
func (p *server) close() events.LSN {
	p.lsn++
	for _, other := range p.node.w.nodes {
		if q := other.pg; q.streaming && q.upstream != nil && q.upstream.Name == p.node.name {
			q.branch, q.lsn = p.branch, p.lsn
		}
	}
	p.ready = false
	// The server ends by itself, whatever becomes of the agent that asked for it.
	pid := p.pid
	p.node.w.after(3*time.Second+time.Millisecond, func() {
		if p.running && p.pid == pid {
			p.die(true, false)
		}
	})
	return p.lsn
}

func (p *server) writable() bool {
	return p.running && p.ready && !p.recovery && !p.node.frozen
}

// fence is the keeper at work: what is armed is dead at D−B.
func (p *server) fence() {
	if p.running && p.armed.Revision != 0 && p.node.w.now >= p.armed.Deadline.Add(-p.armed.Budget) && !p.node.frozen {
		p.node.w.note("%s fenced", p.node.name)
		p.die(true, true)
	}
}

// die ends the whole server.
func (p *server) die(ours, fenced bool) {
	if !p.running {
		return
	}
	down := events.PostgresDown{PID: p.pid, Signal: 9, Ours: ours, Fenced: fenced}
	p.running, p.ready, p.streaming, p.armed, p.waived, p.pid, p.rogue = false, false, false, Fence{}, nil, 0, 0
	p.node.later(p.node.w.between(time.Millisecond, 5*time.Millisecond), func() { p.node.take(down) })
}

// flow moves WAL: a primary writes, a standby receives what its upstream's history has.
func (p *server) flow() {
	w := p.node.w
	if p.writable() {
		p.lsn += events.LSN(w.pick(50))
		p.acknowledge()
	}
	if !p.running || !p.ready || !p.recovery || p.node.frozen {
		return
	}
	was := p.streaming
	p.streaming = false
	if p.upstream == nil {
		return
	}
	for _, n := range w.nodes {
		up := n.pg
		if n.name == p.upstream.Name && !w.apart(n, p.node) && up.running && up.ready && !n.frozen && p.branch != up.branch &&
			p.branch.number == up.branch.number {
			w.fail("%s streams timeline %d from %s, whose timeline of that number is another one: its WAL is overwritten",
				p.node.name, p.branch.number, n.name)
		}
		if n.name == p.upstream.Name && !w.apart(n, p.node) && up.running && up.ready && !n.frozen && p.contained(up) {
			p.streaming = true
			if w.pick(3) > 0 && !p.stalls() {
				p.branch, p.lsn = up.branch, max(p.lsn, up.lsn)
			}
		}
	}
	if was && !p.streaming {
		p.node.later(time.Millisecond, func() { p.node.take(events.WalReceiverEnded{}) })
	}
}

// contained reports whether all that this server has is part of the other's history.
func (p *server) contained(up *server) bool {
	limit := up.lsn
	for b := up.branch; b != nil; b = b.parent {
		if b == p.branch {
			return p.lsn <= limit
		}
		limit = b.fork
	}
	return false
}

func (p *server) start(standby bool) {
	p.node.w.pids++
	p.running, p.ready, p.recovery, p.pid, p.rogue = true, true, standby, p.node.w.pids, 0
	p.signal = standby
}

func (p *server) promote() {
	p.node.w.judgePromotion(p)
	p.branch = &branch{number: p.branch.number + 1, parent: p.branch, fork: p.lsn}
	p.lsn++
	p.recovery, p.signal, p.streaming, p.upstream = false, false, false, nil
	p.promoted = p.node.w.now
	p.acked = 0
}

// copyFrom makes the data directory that of another server.
func (p *server) copyFrom(up *server) {
	p.data, p.system, p.branch, p.lsn, p.signal = true, up.system, up.branch, up.lsn, true
}

// observe is what the sensor says.
func (p *server) observe() events.PostgresState {
	st := events.PostgresState{ServerVersion: 150000, Data: events.DataDir{Content: events.DataEmpty}}
	if !p.data {
		return st
	}
	st.Data = events.DataDir{Content: events.DataCluster, SystemID: p.system, Standby: p.signal, CanRewind: true}
	st.CheckpointTimeline = p.branch.number
	st.Running, st.PID, st.Ready = p.running, p.pid, p.ready
	if !p.running {
		return st
	}
	if !p.ready {
		st.Why = "starting"
		return st
	}
	st.Timeline, st.InRecovery = p.branch.number, p.recovery
	if p.recovery {
		st.Received, st.Replayed, st.Streaming = p.lsn, p.lsn, p.streaming
		if p.upstream != nil {
			st.ConfiguredUpstream, st.Upstream = p.upstream.Addr(), p.upstream.Addr()
		}
		return st
	}
	st.Position = p.lsn
	if p.node.w.now.Sub(p.promoted) < 100*time.Millisecond && p.branch.parent != nil {
		st.CheckpointTimeline = p.branch.parent.number
	}
	for _, n := range p.node.w.nodes {
		if n.pg.streamsFrom(p) {
			state := events.StandbyState{Name: n.name, State: "streaming", Flushed: n.pg.lsn, SyncState: "async"}
			if hasName(p.names.Names, n.name) {
				state.SyncState = "sync"
			}
			st.Standbys = append(st.Standbys, state)
		}
	}
	st.SyncNames, st.SyncHeld = p.names.Text(), !p.names.Own
	return st
}
