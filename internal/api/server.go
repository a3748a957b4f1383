package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/events/journal"
	"github.com/pgregent/regent/fsm"
	"github.com/pgregent/regent/internal/metrics"
	"github.com/pgregent/regent/internal/mono"
)

// Agent is what the API reads of the agent it belongs to.
type Agent interface {
	// Snapshot returns the machine's latest state. It is never changed.
	Snapshot() *fsm.State
	// Changed returns a channel that is closed at the next change of the snapshot.
	Changed() <-chan struct{}
	// Observe looks at PostgreSQL now. It may take seconds when the server hangs.
	Observe(ctx context.Context) (events.PostgresState, error)
}

// Options are what the API is made of.
type Options struct {
	Name    events.NodeName
	Scope   string
	Version string // of Regent
	// Compat is "3.0.4" for that version's words where the two differ; anything else
	// means 4.1's.
	Compat string
	Agent  Agent
	// Ask hands an operator's request to the machine and waits for its answer. An
	// error means that the answer isn't known, unless the request was not taken.
	Ask func(ctx context.Context, id string, ev events.Event) (ok bool, text string, err error)
	// Reload reads the member's configuration anew, as SIGHUP does. It is called from
	// Run's goroutines, one call at a time; it may call Server.Reload.
	Reload func()
	// Target tells of the store that the cluster is to be moved to, as this member's file
	// names it; key is what the digest is keyed with. Nil: there are no moves.
	Target func(ctx context.Context, key string) TargetReport
	// CheckConfig refuses a dynamic configuration that promises what this release
	// can't keep; nil takes everything, as Patroni does. Its error is for the operator.
	CheckConfig func(config []byte) error
	Store       dcs.Store
	// Journal is what GET /why and GET /events read; nil: they have nothing to tell.
	Journal *journal.Journal
	// Quiet tells of the quiet stretch that isn't in the journal yet, and when it was
	// last confirmed; nil: there never is one.
	Quiet func() (under fsm.Stretch, last time.Time)
	// Meter adds Regent's own metrics to Patroni's; nil leaves them out.
	Meter *metrics.Meter
	// Peers asks other members' REST APIs.
	Peers *http.Client
	// MaxConnections is how many clients are served at once; 0 means 128.
	MaxConnections int
	Settings       Settings
	Log            *slog.Logger
}

// grace is how long requests under way may take to end when the server stops.
const grace = time.Second

// Server is the API of one member. New, then Run, once.
type Server struct {
	opt   Options
	log   *slog.Logger
	agent Agent
	mono  func() events.Instant
	wall  func() time.Time
	born  events.Instant
	looks *looks
	conns *connections
	// serving is replaced as a whole by Reload.
	serving atomic.Pointer[serving]
	// reloading serialises Reload, and guards ended.
	reloading sync.Mutex
	ended     bool          // Run has closed the listener
	asked     chan struct{} // a reload was asked for; holds one token
	// reading and following bound the clients that read the journal.
	reading, following chan struct{}
}

// serving is what the settings in force come to.
type serving struct {
	listen   string
	listener net.Listener
	access   *access
}

// New checks the settings and opens the listener, so that an address in use or a bad
// certificate is an error at start. Connections are accepted by Run; a server that
// is never run must be closed.
func New(o Options) (*Server, error) {
	if o.MaxConnections <= 0 {
		o.MaxConnections = 128
	}
	s := &Server{
		opt: o, log: o.Log, agent: o.Agent, mono: mono.Now, wall: time.Now, born: mono.Now(),
		conns: newConnections(o.MaxConnections), asked: make(chan struct{}, 1),
		reading: make(chan struct{}, 1), following: make(chan struct{}, maxFollowers),
	}
	s.looks = newLooks(o.Agent.Observe, func() events.Instant { return s.mono() })
	next, err := prepare(o.Settings)
	if err != nil {
		return nil, err
	}
	if next.listener, err = listen(next.listen); err != nil {
		return nil, err
	}
	s.serving.Store(next)
	return s, nil
}

func prepare(set Settings) (*serving, error) {
	access, err := newAccess(set)
	if err != nil {
		return nil, fmt.Errorf("rest api: %w", err)
	}
	return &serving{listen: set.Listen, access: access}, nil
}

func listen(addr string) (net.Listener, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("rest api: listen on %q: %w", addr, err)
	}
	if host == "*" {
		host = ""
	}
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", net.JoinHostPort(host, port))
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("rest api: another program listens on %s (is another agent running?); stop it, or change restapi.listen: %w", addr, err)
	}
	if err != nil {
		return nil, fmt.Errorf("rest api: listen on %s: %w", addr, err)
	}
	return l, nil
}

// Addr is where the server listens.
func (s *Server) Addr() net.Addr { return s.serving.Load().listener.Addr() }

// Close ends a server that was not run.
func (s *Server) Close() error { return s.serving.Load().listener.Close() }

// Reload puts other settings in force: credentials and certificates for the next
// connection, another address at once. Certificate files are read again each time.
// On an error everything stays as it is.
func (s *Server) Reload(set Settings) error {
	next, err := prepare(set)
	if err != nil {
		return err
	}
	s.reloading.Lock()
	defer s.reloading.Unlock()
	if s.ended {
		return fmt.Errorf("reload the rest api: %w", net.ErrClosed)
	}
	old := s.serving.Load()
	next.listener = old.listener
	if next.listen != old.listen {
		if next.listener, err = listen(next.listen); err != nil {
			return err
		}
	}
	s.serving.Store(next)
	if next.listener != old.listener {
		return old.listener.Close()
	}
	return nil
}

// Run serves until ctx ends, and returns after everything it started has ended:
// requests under way get a second to finish. An observation of PostgreSQL that hangs
// can hold it for as long as Agent.Observe ignores its context.
func (s *Server) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var work sync.WaitGroup
	work.Go(func() { s.looks.run(ctx) })
	work.Go(func() { s.runReloads(ctx) })
	work.Go(func() {
		<-ctx.Done()
		s.closeListener()
		s.conns.closeIdle()
	})
	err := s.accept(ctx, &work)
	stop()
	last := time.AfterFunc(grace, s.conns.closeAll)
	defer last.Stop()
	work.Wait()
	return err
}

// closeListener also catches a listener that Reload is just putting in place.
func (s *Server) closeListener() {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	s.ended = true
	if err := s.serving.Load().listener.Close(); err != nil {
		s.log.Debug("the rest api's listener was closed already", "err", err)
	}
}

// runReloads calls Reload for POST /reload, which is answered before.
func (s *Server) runReloads(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.asked:
			s.opt.Reload()
		}
	}
}

// accept admits clients until ctx ends or the listener breaks.
func (s *Server) accept(ctx context.Context, work *sync.WaitGroup) error {
	for ctx.Err() == nil {
		now := s.serving.Load()
		conn, err := now.listener.Accept()
		switch {
		case err == nil:
			if c := s.conns.admit(ctx, conn); c != nil {
				work.Go(func() { s.serve(ctx, c) })
			}
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			if s.serving.Load().listener == now.listener {
				return fmt.Errorf("rest api: %w", err)
			}
		default: // out of file descriptors, or a client that went away
			s.log.Warn("the rest api could not accept a connection", "err", err)
			pause(ctx, 50*time.Millisecond)
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// serve handles one connection. A defect in a handler costs its client the answer,
// never the agent, on which a primary depends.
func (s *Server) serve(ctx context.Context, c *connection) {
	defer s.conns.leave(c)
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("a request broke the rest api, please report", "err", fmt.Sprint(p))
			s.send(c.conn, page(http.StatusInternalServerError))
		}
	}()
	began := time.Now()
	if err := c.conn.SetDeadline(began.Add(headWithin)); err != nil {
		return
	}
	access := s.serving.Load().access
	conn, err := access.secure(ctx, c.conn)
	if err != nil {
		s.log.Debug("a client of the rest api was turned away", "client", c.conn.RemoteAddr().String(), "err", err)
		return
	}
	r, err := readRequest(conn)
	var out *reply
	switch {
	case err == nil:
		if !s.conns.busy(c) {
			return // the server is stopping
		}
		out = s.answer(ctx, access, r)
	case errors.Is(err, errHead):
		out = page(http.StatusRequestHeaderFieldsTooLarge)
	case wasSilence(err):
		return
	default:
		out = page(http.StatusBadRequest)
	}
	s.send(conn, out)
	if out.stream != nil {
		out.stream(ctx, conn)
	}
	hangUp(conn, r.unread())
	s.logRequest(c, r, out, time.Since(began))
}

func (s *Server) send(conn net.Conn, out *reply) {
	if err := conn.SetWriteDeadline(time.Now().Add(writeWithin)); err != nil {
		return
	}
	if _, err := conn.Write(out.encode("Regent/"+s.opt.Version, s.wall())); err != nil {
		s.log.Debug("a client of the rest api did not take its answer", "err", err)
	}
}

func (s *Server) logRequest(c *connection, r *request, out *reply, took time.Duration) {
	line := "(unreadable)"
	if r != nil {
		line = strings.ToValidUTF8(r.line, "?")
	}
	s.log.Debug("api request", "client", c.conn.RemoteAddr().String(), "request", line, "status", out.code, "took", took)
}
