package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgregent/regent/internal/sandbox/workload"
)

// Status is what an agent says of its member at GET /patroni, as far as it is used here.
type Status struct {
	State    string `json:"state"`
	Role     string `json:"role"`
	Timeline int    `json:"timeline"`
	Pause    bool   `json:"pause"`
	// SyncStandby: commits wait for it.
	SyncStandby bool `json:"sync_standby"`
}

// Status asks the node's agent.
func (n *Node) Status(ctx context.Context) (Status, error) {
	var s Status
	_, body, err := n.request(ctx, http.MethodGet, "/patroni", "")
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(body, &s); err != nil {
		return s, fmt.Errorf("read the status of %s: %w", n.name, err)
	}
	return s, nil
}

// Published is what the store says of each member's state, by name, as the node's agent reads
// it at GET /cluster. Agents publish it with some delay.
func (n *Node) Published(ctx context.Context) (map[string]string, error) {
	_, body, err := n.request(ctx, http.MethodGet, "/cluster", "")
	if err != nil {
		return nil, err
	}
	var cluster struct {
		Members []struct{ Name, State string }
	}
	if err := json.Unmarshal(body, &cluster); err != nil {
		return nil, fmt.Errorf("read the cluster from %s: %w", n.name, err)
	}
	states := map[string]string{}
	for _, m := range cluster.Members {
		states[m.Name] = m.State
	}
	return states, nil
}

// Switchover asks the node's agent to hand the leadership from one member to another, any
// other when to is empty, and returns the agent's sentence. An answer other than 200 is an
// error with that sentence.
func (n *Node) Switchover(ctx context.Context, from, to string) (string, error) {
	order := map[string]string{"leader": from}
	if to != "" {
		order["candidate"] = to
	}
	payload, err := json.Marshal(order)
	if err != nil {
		return "", fmt.Errorf("ask %s for a switchover: %w", n.name, err)
	}
	code, body, err := n.request(ctx, http.MethodPost, "/switchover", string(payload))
	if err != nil {
		return "", err
	}
	if code != http.StatusOK {
		return "", fmt.Errorf("ask %s for a switchover: answer %d: %s", n.name, code, body)
	}
	return string(body), nil
}

func (n *Node) request(ctx context.Context, method, path, payload string) (code int, body []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, method, n.RESTURL()+path, strings.NewReader(payload))
	if err != nil {
		return 0, nil, fmt.Errorf("ask the agent of %s: %w", n.name, err)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, fmt.Errorf("ask the agent of %s: %w", n.name, err)
	}
	body, err = io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return 0, nil, fmt.Errorf("ask the agent of %s: %w", n.name, err)
	}
	return resp.StatusCode, body, nil
}

// ErrNoPrimary: no member is out of recovery.
var ErrNoPrimary = errors.New("no primary")

// lookTimeout bounds how long one member is asked; a frozen one answers nothing.
const lookTimeout = time.Second

// Primary returns the member whose PostgreSQL is out of recovery, as PostgreSQL says itself.
// It is the first one found: whether there are two is for a watcher to see.
func (c *Cluster) Primary(ctx context.Context) (*Node, error) {
	for _, n := range c.nodes {
		recovering, err := n.recovering(ctx)
		if err == nil && !recovering {
			return n, nil
		}
	}
	return nil, ErrNoPrimary
}

func (n *Node) recovering(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, n.DSN())
	if err != nil {
		return false, fmt.Errorf("ask %s for its role: %w", n.name, err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // read only: nothing to lose
	var recovering bool
	if err := conn.QueryRow(ctx, `SELECT pg_is_in_recovery()`).Scan(&recovering); err != nil {
		return false, fmt.Errorf("ask %s for its role: %w", n.name, err)
	}
	return recovering, nil
}

// pollEvery is the time between two looks at a condition that nobody announces.
const pollEvery = 20 * time.Millisecond

// AwaitPrimary returns the primary once there is one.
func (c *Cluster) AwaitPrimary(ctx context.Context) (*Node, error) {
	for {
		n, err := c.Primary(ctx)
		if err == nil {
			return n, nil
		}
		if !pause(ctx, pollEvery) {
			return nil, fmt.Errorf("wait for a primary: %w", context.Cause(ctx))
		}
	}
}

// AwaitSyncStandby returns the synchronous standby once there is one.
func (c *Cluster) AwaitSyncStandby(ctx context.Context) (*Node, error) {
	for {
		for _, n := range c.nodes {
			look, cancel := context.WithTimeout(ctx, lookTimeout)
			s, err := n.Status(look)
			cancel()
			if err == nil && s.SyncStandby {
				return n, nil
			}
		}
		if !pause(ctx, pollEvery) {
			return nil, fmt.Errorf("wait for a synchronous standby: %w", context.Cause(ctx))
		}
	}
}

// StreamingNow returns the primary if all other members stream from it.
func (c *Cluster) StreamingNow(ctx context.Context) (*Node, error) {
	n, err := c.Primary(ctx)
	if err != nil {
		return nil, err
	}
	names, err := n.Streaming(ctx)
	if err != nil {
		return nil, err
	}
	if len(names) != len(c.nodes)-1 {
		return nil, fmt.Errorf("%s is primary, and only %v stream from it", n.name, names)
	}
	return n, nil
}

// AwaitStreaming returns the primary once all other members stream from it.
func (c *Cluster) AwaitStreaming(ctx context.Context) (*Node, error) {
	for {
		n, err := c.StreamingNow(ctx)
		if err == nil {
			return n, nil
		}
		if !pause(ctx, pollEvery) {
			return nil, fmt.Errorf("wait until all members stream: %w: %w", context.Cause(ctx), err)
		}
	}
}

// AwaitHealthy returns when the node's agent says that its PostgreSQL is running.
func (n *Node) AwaitHealthy(ctx context.Context) error {
	for {
		look, cancel := context.WithTimeout(ctx, lookTimeout)
		s, err := n.Status(look)
		cancel()
		if err == nil && s.State == "running" {
			return nil
		}
		if err == nil {
			err = fmt.Errorf("it says %q", s.State)
		}
		if !pause(ctx, pollEvery) {
			return fmt.Errorf("wait for the agent of %s: %w: %w", n.name, context.Cause(ctx), err)
		}
	}
}

// Streaming returns the members that stream from n, which must be a primary, sorted by name.
// A base backup streams too and isn't one of them.
func (n *Node) Streaming(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	names, err := workload.Streaming(ctx, n.DSN())
	if err != nil {
		return nil, err
	}
	names = slices.DeleteFunc(names, func(name string) bool { return n.c.Node(name) == nil })
	return slices.Compact(names), nil
}

// Targets are the members as a watcher wants them.
func (c *Cluster) Targets() []workload.Target {
	var out []workload.Target
	for _, n := range c.nodes {
		out = append(out, workload.Target{Name: n.name, DSN: n.DSN()})
	}
	return out
}
