package fsm

import (
	"fmt"
	"slices"
	"time"

	"github.com/pgregent/regent/events"
)

// cloningRules wait for the copy.
func cloningRules() []rule {
	return []rule{
		shutdownRule(),
		{
			id: "source-gone", trigger: CloneFailed,
			when: func(s *State) (bool, string) {
				_, there := s.view().Member(s.Rejoin.Source)
				switch {
				case !s.doing(Clone{}):
					return false, "no copy is under way"
				case s.Rejoin.Source != s.Rejoin.Leader || there || !s.otherLeads() || s.leader().Name == s.Rejoin.Source:
					return false, "the copy's source has not been replaced"
				default:
					// A dead host's silence can last for hours; that of a replica's agent says
					// nothing about its PostgreSQL.
					return true, fmt.Sprintf("%s, which was copied from, is gone, and %s leads", s.Rejoin.Source, s.leader().Name)
				}
			},
			do: func(e *effects) {
				e.abandon()
				e.Rejoin.Stage, e.Rejoin.NotBefore = "", 0
			},
			status: cloneFailedStatus,
		},
		{
			id: "copying", when: func(s *State) (bool, string) {
				if !s.doing(Clone{}) {
					return false, "no copy is under way"
				}
				return true, "copying from " + string(s.Rejoin.Source)
			},
			status: func(s *State) string {
				return fmt.Sprintf("bootstrap from %s '%s' in progress", sourceRole(s), s.Rejoin.Source)
			},
		},
		{
			id: "cloned", trigger: Cloned,
			when: func(s *State) (bool, string) {
				return s.Rejoin.Stage == "cloned", "copy: " + orNone(s.Rejoin.Why)
			},
			do: func(e *effects) {
				e.Rejoin.Stage = "start"
				e.operate(StartStandby{Upstream: e.upstream()})
			},
			status: func(*State) string { return "replica has been created using basebackup" },
		},
		{
			id: "failed", trigger: CloneFailed,
			when: func(s *State) (bool, string) { return true, "the copy failed: " + s.Rejoin.Why },
			do: func(e *effects) {
				e.Rejoin.Stage = ""
				e.Rejoin.NotBefore = e.Now.Add(e.backoff(e.Rejoin.Clones))
			},
			status: cloneFailedStatus,
		},
	}
}

func cloneFailedStatus(s *State) string {
	return fmt.Sprintf("failed to bootstrap from %s '%s'", sourceRole(s), s.Rejoin.Source)
}

// aloneGrace is how long a standby that was started with nobody to follow may take to
// answer when there is somebody to follow.
const aloneGrace = 3 * time.Second

// startingRules wait for a standby to come up.
func startingRules() []rule {
	return []rule{
		shutdownRule(), foreignRule(), toleratedRule(), pausedForeignRule(), rogueRule(), adoptRule(), reinitRule(),
		{
			id: "up", trigger: ReplicaStarted,
			when: func(s *State) (bool, string) {
				if !s.standbyUp() || s.unseen() {
					return false, "PostgreSQL does not answer in recovery yet"
				}
				return true, "PostgreSQL answers, in recovery"
			},
			do:     func(e *effects) { e.Rejoin.Stage, e.Rejoin.Starts = "", 0 },
			status: secondaryStatus,
		},
		{
			// A standby that needs WAL to become consistent never answers while it has
			// nobody to get it from, and what doesn't answer can't be re-pointed.
			id: "leader-appeared", when: func(s *State) (bool, string) {
				switch {
				case s.Rejoin.Stage != "start-alone" || !s.otherLeads():
					return false, "PostgreSQL wasn't started alone, or nobody leads"
				case !s.pg().Running || s.pg().Ready || s.phaseAge() < aloneGrace:
					return false, "PostgreSQL, started with nobody to follow, may still come up"
				default:
					return true, "PostgreSQL, started with nobody to follow, doesn't answer, and " + string(s.leader().Name) + " leads"
				}
			},
			do: func(e *effects) {
				e.Rejoin.Stage, e.Rejoin.Why = "stop", "it was started with nobody to follow"
				e.operate(Stop{Mode: "fast", Patience: 5 * time.Second})
			},
			status: func(*State) string { return "starting as a secondary" },
		},
		{
			id: "coming-up", when: func(s *State) (bool, string) {
				return told(s.unseen() || s.pg().Running, "PostgreSQL is starting", "PostgreSQL is down, and no start is under way")
			},
			status: func(*State) string { return "starting as a secondary" },
		},
		{
			id: "failed", trigger: StartFailed,
			when: always("PostgreSQL did not come up"),
			do: func(e *effects) {
				e.Rejoin.Stage = ""
				e.Rejoin.NotBefore = e.Now.Add(e.backoff(e.Rejoin.Starts))
			},
			status: func(*State) string { return "failed to start postgres" },
		},
	}
}

// rogueRule: a primary that this agent did not make.
func rogueRule() rule {
	return rule{
		id: "rogue-primary", trigger: RoguePrimary,
		when: func(s *State) (bool, string) {
			switch {
			case !s.primaryUp():
				return false, "PostgreSQL is no primary"
			case s.Postgres.Promoted && s.believes():
				return false, "this agent promoted it"
			default:
				return true, fmt.Sprintf("PostgreSQL left recovery on timeline %d behind the agent's back", s.pg().Timeline)
			}
		},
		do: func(e *effects) {
			// The checkpoint puts the rogue timeline into the control file, without
			// which pg_rewind before PostgreSQL 16 sees no divergence (S23). It must
			// not delay the fence by much: fast mode writes it while shutting down.
			e.beginDemotion(DemoteWork{Why: "promoted behind the agent's back", Mode: "fast"})
		},
		status: func(*State) string {
			return "demoting self because I do not have the lock and I was a leader"
		},
	}
}

// cloneable: is there somebody to copy from?
func (s *State) cloneable() (bool, string) {
	if !s.otherLeads() {
		return false, "nobody leads"
	}
	if _, ok := s.cloneSource(); !ok {
		return false, "leader " + string(s.leader().Name) + " isn't ready to be copied from"
	}
	return true, "no usable data here, and " + string(s.leader().Name) + " leads"
}

// cloneSource is a running member tagged clonefrom, else the primary.
func (s *State) cloneSource() (events.Upstream, bool) {
	if !s.view().Initialize.SystemID.Valid() {
		return events.Upstream{}, false // still being created
	}
	for _, m := range s.view().Members {
		if !s.Rejoin.FromLeader && m.Tags.CloneFrom && m.State == "running" && m.Name != s.Self && m.Name != s.leader().Name {
			if up, ok := m.Upstream(); ok {
				return up, true
			}
		}
	}
	m, ok := s.view().Member(s.leader().Name)
	if !ok || !m.IsPrimary() || m.State != "running" {
		return events.Upstream{}, false
	}
	return m.Upstream()
}

// beginClone starts a copy; the rung is counted before it is tried (S21).
func (e *effects) beginClone() {
	from, _ := e.cloneSource()
	e.Rejoin.Stage, e.Rejoin.Leader, e.Rejoin.Source = "clone", e.leader().Name, from.Name
	e.Rejoin.Clones++
	e.operate(Clone{From: from, Replace: e.Settings.RemoveDataDir || e.Rejoin.Reinit})
}

// upstream is whom this member is to follow: the member of its replicatefrom tag
// while that one runs, else the holder. Nil: nobody.
func (s *State) upstream() *events.Upstream {
	if !s.otherLeads() || s.Settings.Tags.NoStream {
		return nil
	}
	names := []events.NodeName{s.Settings.Tags.ReplicateFrom, s.leader().Name}
	names = slices.DeleteFunc(names, func(n events.NodeName) bool { return n == "" || n == s.Self })
	for _, n := range names {
		m, ok := s.view().Member(n)
		if !ok || (n != s.leader().Name && m.State != "running") {
			continue
		}
		if up, ok := m.Upstream(); ok {
			return &up
		}
	}
	return nil
}

// primary is where the holder's PostgreSQL is; nil while another doesn't lead, or has
// not said.
func (s *State) primary() *events.Upstream {
	m, ok := s.view().Member(s.leader().Name)
	if up, known := m.Upstream(); ok && known && s.otherLeads() {
		return &up
	}
	return nil
}

func cloneStatus(s *State) string {
	return fmt.Sprintf("trying to bootstrap from %s '%s'", sourceRole(s), s.Rejoin.Source)
}

func sourceRole(s *State) string {
	if s.Rejoin.Source == s.Rejoin.Leader {
		return "leader"
	}
	return "replica"
}

func leaderStatus(s *State) string {
	return fmt.Sprintf("no action. I am (%s), the leader with the lock", s.Self)
}

func secondaryStatus(s *State) string {
	if s.Store.DownSince != 0 {
		return "DCS is not accessible"
	}
	if l := s.leader().Name; l != "" && l != s.Self {
		return fmt.Sprintf("no action. I am (%s), a secondary, and following a leader (%s)", s.Self, l)
	}
	if p := s.Failsafe.Promise; s.Now < p.Until {
		return fmt.Sprintf("no action. I am (%s), a secondary, and following a leader (%s)", s.Self, p.To)
	}
	return fmt.Sprintf("no action. I am (%s)", s.Self)
}

// Upstream is upstream for readers outside the machine.
func (s *State) Upstream() *events.Upstream { return s.upstream() }
