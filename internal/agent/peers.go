package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/fsm"
)

// peerStatus is what GET /patroni says, of Patroni members and ours alike.
type peerStatus struct {
	State    string          `json:"state"`
	Role     string          `json:"role"`
	Timeline events.Timeline `json:"timeline"`
	XLog     *struct {
		Location *events.LSN `json:"location"`
		Received events.LSN  `json:"received_location"`
		Replayed events.LSN  `json:"replayed_location"`
	} `json:"xlog"`
	Tags struct {
		NoFailover       any `json:"nofailover"`
		FailoverPriority any `json:"failover_priority"`
	} `json:"tags"`
	WatchdogFailed any `json:"watchdog_failed"`
	// Regent is what Patroni members don't say: how far the WAL of a server goes that
	// is down.
	Regent struct {
		DownAt   events.LSN      `json:"down_at"`
		Timeline events.Timeline `json:"down_timeline"`
	} `json:"regent"`
}

// ask puts one question to a member. One whose PostgreSQL is not there is not
// reachable, whatever its agent says; that may tell where its WAL ends.
func (a *Agent) ask(ctx context.Context, addr fsm.PeerAddr) events.Peer {
	p := events.Peer{Name: addr.Name}
	var st peerStatus
	if err := a.get(ctx, addr.APIURL, &st); err != nil {
		p.Why = err.Error()
		return a.askPostgres(ctx, addr, p)
	}
	p.State, p.Timeline, p.Barred = st.State, st.Timeline, truthy(st.WatchdogFailed)
	p.Tags = events.Tags{NoFailover: truthy(st.Tags.NoFailover), FailoverPriority: priority(st.Tags.FailoverPriority)}
	if p.Tags.FailoverPriority <= 0 && st.Tags.NoFailover == nil {
		p.Tags.NoFailover = true
	}
	if st.XLog == nil {
		p.Why = "its PostgreSQL does not answer (" + st.State + ")"
		p.Position, p.Timeline = st.Regent.DownAt, max(st.Timeline, st.Regent.Timeline)
		return p
	}
	p.Reachable = true
	p.Position = max(st.XLog.Received, st.XLog.Replayed)
	if st.XLog.Location != nil {
		p.Primary, p.Position = true, *st.XLog.Location
	}
	p.Primary = p.Primary || st.Role == "primary" || st.Role == "master"
	return p
}

// askPostgres asks the server of a member whose agent is silent, where that matters: a
// primary that runs without its agent is better than two.
func (a *Agent) askPostgres(ctx context.Context, addr fsm.PeerAddr, p events.Peer) events.Peer {
	if addr.Postgres == nil || a.opt.Postgres == nil {
		return p
	}
	at, timeline, err := a.opt.Postgres.AskPrimary(ctx, *addr.Postgres)
	if err != nil {
		p.Why += "; nor is its PostgreSQL a primary: " + err.Error()
		return p
	}
	p.Reachable, p.Primary, p.Position, p.Timeline, p.State = true, true, at, timeline, "running"
	return p
}

func truthy(v any) bool {
	switch x := v.(type) {
	case bool:
		return x
	case string:
		return x == "true" || x == "on" || x == "yes" || x == "1"
	default:
		return false
	}
}

func priority(v any) int {
	switch x := v.(type) {
	case float64:
		return int(x)
	case string:
		var n int
		if _, err := fmt.Sscan(x, &n); err == nil {
			return n
		}
	}
	return 1
}

func (a *Agent) get(ctx context.Context, url string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("ask %s: %w", url, err)
	}
	resp, err := a.opt.Peers.Do(req)
	if err != nil {
		return fmt.Errorf("ask %s: %w", url, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("ask %s: %w", url, err)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("read the answer of %s: %w", url, err)
	}
	return nil
}

// probePeers asks everybody at once; a host that is silent costs the timeout, one
// that refuses costs nothing (S16).
func (a *Agent) probePeers(ctx context.Context, o fsm.Ordered, act fsm.ProbePeers) {
	var asked sync.WaitGroup
	for _, addr := range act.Peers {
		asked.Go(func() { a.mail.put(events.PeerObserved{ID: o.ID, Peer: a.ask(ctx, addr)}) })
	}
	asked.Wait()
	a.finished(o, events.Done, nil, events.Result{})
}

var errBehind = errors.New("the candidate has not flushed everything")

// askPosition asks until the candidate has everything, or the time is over.
func (a *Agent) askPosition(ctx context.Context, o fsm.Ordered, act fsm.AskPosition) {
	var last events.Peer
	for {
		try, done := context.WithTimeout(ctx, time.Second)
		p := a.ask(try, fsm.PeerAddr{Name: act.Name, APIURL: act.APIURL})
		done()
		if p.Reachable {
			last = p
			if p.Position >= act.At {
				a.finished(o, events.Done, nil, events.Result{Position: p.Position})
				return
			}
		}
		wait(ctx, 5*time.Millisecond)
		if ctx.Err() != nil {
			err := fmt.Errorf("ask %s: %w: it has %s of %s", act.Name, errBehind, last.Position, act.At)
			if !last.Reachable {
				err = fmt.Errorf("ask %s: %s", act.Name, p.Why)
			}
			a.finished(o, events.Unavailable, err, events.Result{})
			return
		}
	}
}
