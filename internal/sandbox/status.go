package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
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

// StreamingNow returns the primary if all other members stream from it.
func (c *Cluster) StreamingNow(ctx context.Context) (*Node, error) {
	n, err := c.Primary(ctx)
	if err != nil {
		return nil, err
	}
	names, err := c.streamingFrom(ctx, n)
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

func (c *Cluster) streamingFrom(ctx context.Context, n *Node) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	return workload.Streaming(ctx, n.DSN())
}

// Targets are the members as a watcher wants them.
func (c *Cluster) Targets() []workload.Target {
	var out []workload.Target
	for _, n := range c.nodes {
		out = append(out, workload.Target{Name: n.name, DSN: n.DSN()})
	}
	return out
}
