package embedded

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/pgregent/regent/events"
)

// Safety rule S18: raft's leader is kept off the node of the leader key's holder
// while a healthy voter exists elsewhere. If both die together, failover has to wait
// for an election before the lease even begins to run out.
//
// It also leaves a node whose disk is slow (speed.go), for one whose disk is at least twice
// as fast, if need be the holder's.

const (
	// closeLog is how far a healthy voter's log may be behind, in entries.
	closeLog = 64
	// askVoter bounds the question whether a voter is healthy.
	askVoter = 300 * time.Millisecond
	// placeRetryMax bounds the pauses between tries while no voter is healthy.
	placeRetryMax = time.Minute
)

// place hands raft's leadership on whenever this node has it and is the holder's. It
// looks when the content, leadership or a voter's health changes. Only while it wants
// to move and can't does it look again by itself, less and less often.
func (s *Store) place(ctx context.Context) {
	m := moves{pause: s.cfg.Timings.TransferPause, settle: s.cfg.Timings.TransferPause / 5}
	for {
		changed, standing, health, turned := s.replica.changed.wait(), s.standing.wait(), s.health.wait(), s.disk.speed.turned.wait()
		var again <-chan time.Time
		from := s.misplaced()
		if wait := m.wait(from != "", s.cfg.now()); wait == 0 {
			if s.moveAway(ctx, from) {
				m.moved()
			} else {
				m.failed()
			}
			continue
		} else if wait > 0 {
			again = time.After(wait)
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-standing:
		case <-turned:
		case <-health:
			m.pause = s.cfg.Timings.TransferPause
		case <-again:
		}
	}
}

// moves says when the next move may be tried.
type moves struct {
	settle time.Duration  // a new holder may finish its first writes before the store moves under it
	pause  time.Duration  // least time between two tries
	since  events.Instant // when the misplacement was noticed; 0: there is none
	tried  events.Instant // when the last try began
}

// wait is how long to wait before the next try: 0 for now, negative for no try. A try
// that is due counts as begun.
func (m *moves) wait(misplaced bool, now events.Instant) time.Duration {
	if !misplaced {
		m.since = 0
		return -1
	}
	if m.since == 0 {
		m.since = now
	}
	due := m.since.Add(m.settle)
	if m.tried != 0 {
		due = max(due, m.tried.Add(m.pause))
	}
	if due > now {
		return due.Sub(now)
	}
	m.tried = now
	return 0
}

func (m *moves) moved() { m.since = 0 }

func (m *moves) failed() { m.pause = min(2*m.pause, placeRetryMax) }

// The nodes that the raft leader leaves.
const (
	slowNode    = "a node whose disk is slow"
	holdersNode = "the holder's node"
)

// misplaced says which of them this node is, if it leads raft and isn't alone.
func (s *Store) misplaced() string {
	if s.current() == nil || s.disk.speed.standing() > 0 || len(s.otherVoters()) == 0 {
		return ""
	}
	switch {
	case s.disk.speed.usual() >= s.disk.speed.slow:
		return slowNode
	case s.replica.holder() == s.cfg.Name:
		return holdersNode
	}
	return ""
}

func (s *Store) otherVoters() []raft.Server {
	var out []raft.Server
	for _, server := range s.configuration().Servers {
		if server.ID != s.folder.id && server.Suffrage == raft.Voter {
			out = append(out, server)
		}
	}
	return out
}

// moveAway transfers leadership to the healthiest other voter; false if there is none
// or raft couldn't.
func (s *Store) moveAway(ctx context.Context, from string) bool {
	if from == slowNode {
		s.quiet.warn("the disk of the raft folder is slow: another node should lead the store", s.cfg.DataDir,
			"dir", s.cfg.DataDir, "write", s.disk.speed.usual().Round(time.Millisecond))
	}
	target, ok := s.healthiest(ctx)
	if !ok {
		s.quiet.info("the raft leader stays on "+from+": no other voter is healthy, and fast enough", "")
		return false
	}
	bounded, cancel := context.WithTimeout(ctx, 2*s.cfg.Timings.Election+time.Second)
	defer cancel()
	err := s.wait(bounded, func() raft.Future { return s.raft.LeadershipTransferToServer(target.ID, target.Address) })
	if err != nil {
		s.quiet.info("move the raft leader off "+from, "", "to", nameOf(target.ID), "err", err)
		return false
	}
	s.log.Info("moved the raft leader off "+from, "to", nameOf(target.ID))
	return true
}

// healthiest is the voter with the longest log among those that answer now, follow
// this leader, heard of it lately, are close behind, and store fast enough. Ties go by name.
func (s *Store) healthiest(ctx context.Context) (best raft.Server, found bool) {
	voters := s.otherVoters()
	return successor(voters, s.askStatus(ctx, voters), s.healthy(), leaderDisk{
		usual: s.disk.speed.usual(), slow: s.disk.speed.slow, holder: s.replica.holder(), self: s.cfg.Name,
	})
}

// leaderDisk is what a leader knows of its own disk, and whether it is the holder's node.
type leaderDisk struct {
	usual, slow  time.Duration
	holder, self events.NodeName
}

// successor of a leader. A slow one asks the holder's node last, because raft's leader could
// not stay there. Where all are slow none is a reason to stay on the holder's node.
func successor(voters []raft.Server, answers []*Status, h health, own leaderDisk) (best raft.Server, found bool) {
	if own.usual >= own.slow {
		h.write = own.usual / 2
		elsewhere := slices.Clone(answers)
		for i, voter := range voters {
			if nameOf(voter.ID) == string(own.holder) {
				elsewhere[i] = nil
			}
		}
		for _, from := range [][]*Status{elsewhere, answers} {
			if best, found = fittest(voters, from, h); found {
				return best, true
			}
		}
		if own.holder != own.self {
			return best, false
		}
	}
	h.write = max(own.slow, 2*own.usual)
	return fittest(voters, answers, h)
}

// healthy is what this leader expects of a voter now.
func (s *Store) healthy() health {
	return health{
		leader: string(s.folder.id), applied: s.raft.AppliedIndex(), age: 2*s.cfg.Timings.Commit + s.cfg.Timings.Heartbeat,
	}
}

// askStatus asks servers at once; nil stands for those that didn't answer in time.
func (s *Store) askStatus(ctx context.Context, voters []raft.Server) []*Status {
	answers := make([]*Status, len(voters))
	ctx, cancel := context.WithTimeout(ctx, askVoter)
	defer cancel()
	var wg sync.WaitGroup
	for i, voter := range voters {
		wg.Go(func() {
			answer, _, err := s.peers.call(ctx, string(voter.Address), request{Verb: verbStatus})
			if err == nil {
				answers[i] = answer.Status
			}
		})
	}
	wg.Wait()
	return answers
}

// health is what a voter is measured by.
type health struct {
	leader  string        // whom it must follow
	applied uint64        // how far the leader is
	age     time.Duration // how long ago it may have been up to date
	write   time.Duration // usual time to store an entry that is too long; 0: none is
}

// fittest picks from voters by their answers; nil means that none came.
func fittest(voters []raft.Server, answers []*Status, h health) (best raft.Server, found bool) {
	var most uint64
	for i, voter := range voters {
		st := answers[i]
		if st == nil || st.Trouble != "" || st.ID != string(voter.ID) || st.LeaderID != h.leader ||
			st.Age < 0 || st.Age > h.age || st.Applied+closeLog < h.applied ||
			(h.write > 0 && st.Write >= h.write) {
			continue
		}
		if !found || st.Applied > most || (st.Applied == most && voter.ID < best.ID) {
			best, most, found = voter, st.Applied, true
		}
	}
	return best, found
}
