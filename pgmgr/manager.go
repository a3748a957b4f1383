package pgmgr

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/pgmgr/keeper"
)

// Postmaster is the keeper, the parent of the server, as the verbs need it; the
// client in package keeper is one. Errors are keeper.ErrRefused, ErrUnavailable
// and ErrUnknown.
type Postmaster interface {
	// Status says what runs. Alive is false only when no process of the data
	// directory is left (S1).
	Status(ctx context.Context) (keeper.Status, error)
	// Start starts the postmaster and returns when it was executed, not when it is
	// ready. Refused without a valid grant unless a signal file makes it a standby (S3).
	Start(ctx context.Context, req keeper.StartRequest) (keeper.Status, error)
	// Extend arms the running server, or moves its deadline forward.
	Extend(ctx context.Context, grant keeper.Grant) error
	// Promote arms the keeper with the grant, then tells the standby to promote (S3).
	Promote(ctx context.Context, grant keeper.Grant) error
	// PromoteWaived is Promote without a deadline.
	PromoteWaived(ctx context.Context, w keeper.Waiver) error
	// Disarm takes the deadline away; why is kept by the keeper.
	Disarm(ctx context.Context, w keeper.Waiver) error
	// Stop sends the stop and returns; it doesn't wait.
	Stop(ctx context.Context, mode keeper.StopMode) error
	// WaitDown returns nil when no process of the data directory is left, at once if
	// none is now.
	WaitDown(ctx context.Context) error
}

// Manager performs the verbs on one data directory. Its methods may be called
// from any goroutine, but at most one mutating verb at a time, which the caller
// guarantees; Observe and the other reading verbs may run beside it.
type Manager struct {
	pm  Postmaster
	log *slog.Logger

	// mu guards what follows; it is never held over I/O.
	mu  sync.Mutex
	cfg Config
	// raised: the standby runs with parameters of its control file that are higher
	// than configured, so a restart is due once the primary has lowered its own.
	raised changes
	// rejected holds parameters that this server doesn't take, so that they are
	// checked once and not at each write of the configuration.
	rejected rejectedParams

	// monitor is owned by Observe and has its own lock.
	monitor monitor
	control controlCache
	version versionCache
}

// New returns a Manager. It touches neither disk nor network, except that it
// makes the run directory.
func New(cfg Config, pm Postmaster, log *slog.Logger) (*Manager, error) {
	if err := cfg.Validate(); err != nil {
		return nil, classed(ErrBroken, "configure PostgreSQL", err)
	}
	if pm == nil || log == nil {
		return nil, classed(ErrBroken, "configure PostgreSQL", errors.New("a postmaster and a logger are needed"))
	}
	if err := os.MkdirAll(cfg.RunDir, 0o700); err != nil {
		return nil, classed(ErrBroken, "make run directory", err)
	}
	return &Manager{pm: pm, log: log, cfg: cfg}, nil
}

// Reconfigure replaces the configuration. It takes effect with the next verb
// (WriteConfig and Reload bring it to a running server). The folders and the
// name can't change in the life of a Manager.
func (m *Manager) Reconfigure(cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return classed(ErrBroken, "configure PostgreSQL", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if cfg.DataDir != m.cfg.DataDir || cfg.RunDir != m.cfg.RunDir || cfg.Name != m.cfg.Name {
		return classed(ErrRefused, "configure PostgreSQL",
			fmt.Errorf("data directory, run directory and name stay until the agent is restarted"))
	}
	m.cfg = cfg
	return nil
}

// Close closes the monitoring connection. The server is left alone.
func (m *Manager) Close(ctx context.Context) { m.monitor.close(ctx) }

// config is the configuration in force.
func (m *Manager) config() Config {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cfg
}

func (m *Manager) setRaised(v changes) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.raised = v
}

func (m *Manager) raisedNow() changes {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.raised
}

// FlushedLSN is how much WAL the server surely has on disk: a primary's flush
// position, and on a standby the larger of what it received and what it replayed
// (the received position is void until a walreceiver has run, and falls back to
// the start of a segment when one is restarted).
func FlushedLSN(st events.PostgresState) events.LSN {
	if !st.InRecovery {
		return st.Position
	}
	return max(st.Received, st.Replayed)
}
