package keeper

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// Client is one connection to a keeper. The keeper obeys only the connection that
// was made last; an older one is told so and closed.
//
// All methods may be called concurrently, obey their context, and return errors of
// three classes: ErrRefused with the keeper's sentence, ErrUnavailable when
// nothing can have happened, ErrUnknown when a command was sent and its answer
// didn't come.
//
// A Client never reconnects by itself: Done is closed when the connection ends,
// and its owner decides what that means (S4: the holder of the lease fences or
// respawns before its next renewal).
type Client struct {
	conn   net.Conn
	events *eventQueue
	done   chan struct{} // closed by read when the connection has ended
	wg     sync.WaitGroup
	// protocol is what both ends speak; set before the client is handed out.
	protocol int

	// writing is held while a line is written; a channel, so that waiting for it
	// obeys a context.
	writing chan struct{}

	mu      sync.Mutex // guards what follows
	nextID  uint64
	waiting map[uint64]question
	heard   time.Time     // when the newest request that has an answer was about to be sent
	down    chan struct{} // closed and replaced at each ServerDown
	ended   error         // why the connection ended; nil while it lives
}

// question is a request that has no answer yet.
type question struct {
	asked  time.Time
	answer chan Message
}

// Connect connects to the keeper of runDir and takes it over. ErrUnavailable: no
// keeper serves there.
func Connect(ctx context.Context, runDir string) (*Client, error) {
	c, err := dial(ctx, runDir)
	if err != nil {
		return nil, err
	}
	st, err := c.call(ctx, Request{Op: OpAttach, Protocol: Protocol})
	if err == nil {
		if c.protocol, err = CheckProtocol(st.Protocol); err != nil {
			err = fmt.Errorf("connect to the keeper (pid %d, version %s): %w: %w", st.KeeperPID, st.Version, ErrRefused, err)
		}
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// needs refuses what the keeper's protocol is too old for, before anything is
// sent: an older keeper would ignore the field that matters.
func (c *Client) needs(protocol int, what string) error {
	if c.protocol >= protocol {
		return nil
	}
	return fmt.Errorf("%w: the running keeper is older than this agent and doesn't know %s; it is replaced when PostgreSQL is down and the agent is restarted",
		ErrRefused, what)
}

// Peek asks the keeper of runDir for its status without taking it over, so that a
// tool can look while an agent works.
func Peek(ctx context.Context, runDir string) (Status, error) {
	c, err := dial(ctx, runDir)
	if err != nil {
		return Status{}, err
	}
	st, err := c.Status(ctx)
	return st, errors.Join(err, c.Close())
}

func dial(ctx context.Context, runDir string) (*Client, error) {
	path, err := SocketPath(runDir)
	if err != nil {
		return nil, fmt.Errorf("connect to the keeper: %w: %w", ErrUnavailable, err)
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("connect to the keeper: %w: %w", ErrUnavailable, err)
	}
	c := &Client{
		conn:    conn,
		events:  newEventQueue(),
		done:    make(chan struct{}),
		writing: make(chan struct{}, 1),
		waiting: map[uint64]question{},
		down:    make(chan struct{}),
	}
	c.wg.Add(2)
	go func() { defer c.wg.Done(); c.read() }()
	go func() { defer c.wg.Done(); c.events.run() }()
	return c, nil
}

// needsWatchdog refuses a promise that an older keeper would not keep.
func (c *Client) needsWatchdog(g *Grant) error {
	if g == nil || g.Watchdog.Mode != WatchdogRequired {
		return nil
	}
	return c.needs(2, "the watchdog")
}

// Close ends the connection and waits for the client's goroutines. The keeper and
// its PostgreSQL live on, armed as they were. Events not read yet are dropped.
func (c *Client) Close() error {
	err := c.conn.Close()
	c.events.abandon()
	c.wg.Wait()
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("close the keeper's connection: %w", err)
	}
	return nil
}

// Done is closed when the connection has ended, whoever ended it.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err says why the connection ended; nil while it lives.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ended
}

// Events delivers what the keeper reports, in order and without loss however
// slowly it is read: first the present state, repeated, then everything new. It is
// closed after the last event of an ended connection.
func (c *Client) Events() <-chan Event { return c.events.out }

// Silence is how long ago the newest request that the keeper has answered was sent:
// since then nobody can tell whether it stands still. Requests whose answers came after
// their callers had given up don't count.
func (c *Client) Silence() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Since(c.heard)
}

// Status asks what the keeper knows. It changes nothing, so a lost answer is
// ErrUnavailable, never ErrUnknown.
func (c *Client) Status(ctx context.Context) (Status, error) {
	st, err := c.call(ctx, Request{Op: OpStatus})
	if errors.Is(err, ErrUnknown) {
		err = fmt.Errorf("keeper status: %w: no answer", ErrUnavailable)
	}
	return st, err
}

// Start starts a postmaster and returns once it was executed, long before it
// accepts connections. It is refused when a server is alive, when the grant is
// past, and when there is neither grant nor waiver and the data directory isn't a
// standby's (S3).
func (c *Client) Start(ctx context.Context, r StartRequest) (Status, error) {
	if r.Waiver != nil {
		if err := c.needs(2, "starting without a deadline"); err != nil {
			return Status{}, fmt.Errorf("keeper %s: %w", OpStart, err)
		}
	}
	if err := c.needsWatchdog(r.Grant); err != nil {
		return Status{}, fmt.Errorf("keeper %s: %w", OpStart, err)
	}
	return c.call(ctx, Request{Op: OpStart, Start: &r})
}

// Extend moves the fence deadline of the running server forward, arming the
// server if it wasn't. Within one revision a deadline never moves back: an
// earlier one is accepted without effect. A newer revision's grant replaces the
// old one whole. Refused when past, for an older revision, when fencing has begun,
// when no server runs, and while a waiver is in force that the grant isn't newer
// than (Grant.Config).
func (c *Client) Extend(ctx context.Context, g Grant) error {
	if err := c.needsWatchdog(&g); err != nil {
		return fmt.Errorf("keeper %s: %w", OpExtend, err)
	}
	_, err := c.call(ctx, Request{Op: OpExtend, Grant: &g})
	return err
}

// Promote arms the server and then makes PostgreSQL leave recovery; it returns when
// the signal was sent, not when recovery has ended. Refused like Extend, and when
// the server isn't a standby or is being stopped. A server that was armed and then
// could not be promoted stays armed.
func (c *Client) Promote(ctx context.Context, g Grant) error {
	if err := c.needsWatchdog(&g); err != nil {
		return fmt.Errorf("keeper %s: %w", OpPromote, err)
	}
	_, err := c.call(ctx, Request{Op: OpPromote, Grant: &g})
	return err
}

// PromoteWaived is Promote with a waiver in the grant's place: the server accepts
// writes without any deadline.
func (c *Client) PromoteWaived(ctx context.Context, w Waiver) error {
	if err := c.needs(2, "promoting without a deadline"); err != nil {
		return fmt.Errorf("keeper %s: %w", OpPromote, err)
	}
	_, err := c.call(ctx, Request{Op: OpPromote, Waiver: &w})
	return err
}

// Disarm takes the deadline away (S11) and notes why, so that a restarted agent
// finds it in Status.Waived. An Extend with a newer Grant.Config arms again.
// Refused once fencing has begun, and for an older revision of /config than the
// keeper knows of. Disarming a server that is down succeeds without effect: the
// next one needs a grant or a waiver of its own.
func (c *Client) Disarm(ctx context.Context, w Waiver) error {
	if err := c.needs(2, "why it is disarmed"); err != nil {
		return fmt.Errorf("keeper %s: %w", OpDisarm, err)
	}
	_, err := c.call(ctx, Request{Op: OpDisarm, Waiver: &w})
	return err
}

// Stop asks the server to stop and returns when it was asked; WaitDown waits for
// the end. Stopping a server that is down succeeds. The server stays armed while
// it stops.
func (c *Client) Stop(ctx context.Context, mode StopMode) error {
	_, err := c.call(ctx, Request{Op: OpStop, Mode: mode})
	return err
}

// Fence begins fencing now: no client backend is left when within has passed, or
// at the armed deadline if that is earlier (S2). It can't be taken back. Fencing a
// server that is down succeeds.
func (c *Client) Fence(ctx context.Context, within time.Duration) error {
	_, err := c.call(ctx, Request{Op: OpFence, Within: within})
	return err
}

// Adopt takes charge of a running postmaster that the keeper didn't start (S5); pid
// 0 means the one that postmaster.pid names. Adopting the server that is already in
// its charge succeeds. It doesn't arm.
func (c *Client) Adopt(ctx context.Context, pid int) (Status, error) {
	return c.call(ctx, Request{Op: OpAdopt, PID: pid})
}

// Shutdown ends the keeper. Refused while its PostgreSQL lives (S4); the keeper ends with that
// then, if it is under no deadline and no other client attaches before.
func (c *Client) Shutdown(ctx context.Context) error {
	_, err := c.call(ctx, Request{Op: OpShutdown})
	return err
}

// WaitDown returns nil when no process of the data directory is left (S1); at once
// if none is now.
func (c *Client) WaitDown(ctx context.Context) error {
	c.mu.Lock()
	down := c.down
	c.mu.Unlock()
	st, err := c.Status(ctx)
	if err != nil {
		return fmt.Errorf("wait for the server's end: %w", err)
	}
	if !st.Alive {
		return nil
	}
	select {
	case <-down:
		return nil
	case <-c.done:
		select {
		case <-down:
			return nil
		default:
			return fmt.Errorf("wait for the server's end: %w: %w", ErrUnavailable, c.Err())
		}
	case <-ctx.Done():
		return fmt.Errorf("wait for the server's end: %w: %w", ErrUnavailable, ctx.Err())
	}
}

// call sends one request and waits for its answer.
func (c *Client) call(ctx context.Context, r Request) (Status, error) {
	answer := make(chan Message, 1)
	c.mu.Lock()
	if c.ended != nil {
		err := c.ended
		c.mu.Unlock()
		return Status{}, fmt.Errorf("keeper %s: %w: %w", r.Op, ErrUnavailable, err)
	}
	c.nextID++
	r.ID = c.nextID
	c.waiting[r.ID] = question{time.Now(), answer}
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.waiting, r.ID)
		c.mu.Unlock()
	}()
	if err := c.send(ctx, r); err != nil {
		return Status{}, fmt.Errorf("keeper %s: %w", r.Op, err)
	}
	select {
	case m := <-answer:
		return c.outcome(r, m)
	case <-ctx.Done():
		return Status{}, fmt.Errorf("keeper %s: %w: %w", r.Op, ErrUnknown, ctx.Err())
	case <-c.done:
	}
	select { // the answer may have been the last thing read
	case m := <-answer:
		return c.outcome(r, m)
	default:
		return Status{}, fmt.Errorf("keeper %s: %w: %w", r.Op, ErrUnknown, c.Err())
	}
}

func (c *Client) outcome(r Request, m Message) (Status, error) {
	var st Status
	if m.Status != nil {
		st = *m.Status
	}
	if m.Refused != "" {
		return st, fmt.Errorf("keeper %s: %w: %s", r.Op, ErrRefused, m.Refused)
	}
	return st, nil
}

// send writes the request as one line. A line cut off in the middle makes the
// stream useless, so the connection is closed then.
func (c *Client) send(ctx context.Context, r Request) error {
	line, err := Line(r)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	select {
	case c.writing <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
	case <-c.done:
		return fmt.Errorf("%w: %w", ErrUnavailable, c.Err())
	}
	defer func() { <-c.writing }()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(interrupted)
		_ = c.conn.SetWriteDeadline(time.Unix(1, 0)) // fails only when closed, as the write will
	})
	n, err := c.conn.Write(line)
	if !stop() {
		<-interrupted
		if resetErr := c.conn.SetWriteDeadline(time.Time{}); resetErr != nil && err == nil {
			err = resetErr
		}
	}
	if n > 0 && n < len(line) {
		_ = c.conn.Close() // read reports the end of the connection
	}
	switch {
	case err == nil:
		return nil
	case n == 0:
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	default:
		return fmt.Errorf("%w: %w", ErrUnknown, err)
	}
}

// read owns the receiving side until the connection ends.
func (c *Client) read() {
	err := c.readLines()
	_ = c.conn.Close() // whatever ended the reading, the connection is of no use now
	c.mu.Lock()
	c.ended = err
	c.mu.Unlock()
	c.events.finish()
	close(c.done)
}

var errConnectionEnded = errors.New("the keeper's connection ended")

func (c *Client) readLines() error {
	lines := bufio.NewReader(c.conn)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return fmt.Errorf("%w: %w", errConnectionEnded, err)
		}
		var m Message
		if err := json.Unmarshal(line, &m); err != nil {
			return fmt.Errorf("%w: unreadable line: %w", errConnectionEnded, err)
		}
		switch {
		case m.Event != nil:
			c.events.push(*m.Event)
			if m.Event.Kind == ServerDown && !m.Event.Repeated {
				c.mu.Lock()
				close(c.down)
				c.down = make(chan struct{})
				c.mu.Unlock()
			}
			if m.Event.Kind == Superseded {
				return fmt.Errorf("%w: %s", errConnectionEnded, m.Event.Note)
			}
		case m.ID != 0:
			c.mu.Lock()
			q, open := c.waiting[m.ID]
			delete(c.waiting, m.ID) // a second answer must not block
			if q.asked.After(c.heard) {
				c.heard = q.asked
			}
			c.mu.Unlock()
			if open {
				q.answer <- m
			}
		}
	}
}
