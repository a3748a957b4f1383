package systemd

import (
	"log/slog"
	"time"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/fsm"
)

// Service tells the service manager what the agent's loop comes to. Its methods belong to
// the loop: one that hangs gives no sign of life and is ended by the watchdog, and the
// keeper stops a primary when its lease ends.
type Service struct {
	n        *Notifier
	log      *slog.Logger
	ready    bool
	stopping bool
	status   string
	failed   string // the last failure to send, logged once
}

// NewService returns the service of an agent that has not begun.
func NewService(n *Notifier, log *slog.Logger) *Service { return &Service{n: n, log: log} }

const (
	// extendEvery is how often a start or stop under way asks for more time, extend for
	// how much.
	extendEvery = 5 * time.Second
	extend      = "EXTEND_TIMEOUT_USEC=60000000"
)

// Every is how often the loop must call Beat; zero: never. Long starts are extended by
// beats, so they are wanted without a watchdog as well.
func (s *Service) Every() time.Duration {
	switch {
	case !s.n.Listening():
		return 0
	case s.n.Watchdog == 0:
		return extendEvery
	default:
		return min(s.n.Watchdog/3, extendEvery)
	}
}

// Beat is the loop's sign of life.
func (s *Service) Beat() {
	if s.ready && !s.stopping {
		s.send("WATCHDOG=1")
		return
	}
	// A copy of terabytes and a long recovery are no starts that hang, and a large
	// checkpoint is no stop that does.
	s.send("WATCHDOG=1", extend)
}

// Stepped takes in what the loop came to.
func (s *Service) Stepped(st *fsm.State) {
	var out []string
	if !s.ready && joined(st) {
		s.ready = true
		out = append(out, "READY=1")
	}
	if !s.stopping && (st.Shutdown != "" || st.Phase == fsm.Stopping) {
		s.stopping = true
		out = append(out, "STOPPING=1")
	}
	if status := st.Last.Status; status != s.status {
		s.status = status
		out = append(out, "STATUS="+status)
	}
	s.send(out...)
}

// joined: PostgreSQL is up in its place, or a heartbeat found nothing under way: the agent
// waits for a store, a leader or an operator, and whoever starts the members one after the
// other must not be kept waiting for what only the next ones bring.
func joined(s *fsm.State) bool {
	if s.Postgres.State.Running && s.Postgres.State.Ready {
		return s.Phase == fsm.Leading || s.Phase == fsm.Following || s.Settings.Pause
	}
	return s.Last.Event == events.KindTick && !s.Last.Fired() && s.Op == nil
}

func (s *Service) send(assignments ...string) {
	err := s.n.Send(assignments...)
	switch {
	case err == nil:
		s.failed = ""
	case s.failed != err.Error():
		s.failed = err.Error()
		s.log.Warn("the service manager isn't told how the agent is doing", "err", err)
	}
}
