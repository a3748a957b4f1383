package sandbox

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
)

// PatchConfig changes the cluster's dynamic configuration through the node's agent: patch is
// JSON as PATCH /config takes it. An answer other than 200 is an error with its text.
func (n *Node) PatchConfig(ctx context.Context, patch string) error {
	return n.order(ctx, http.MethodPatch, "/config", patch)
}

// RestartPostgres asks the node's agent to restart PostgreSQL, and returns when it is up again.
// An answer other than 200 is an error with its text.
func (n *Node) RestartPostgres(ctx context.Context) error {
	return n.order(ctx, http.MethodPost, "/restart", "{}")
}

func (n *Node) order(ctx context.Context, method, path, payload string) error {
	code, body, err := n.request(ctx, method, path, payload)
	if err != nil {
		return err
	}
	if code != http.StatusOK {
		return fmt.Errorf("%s %s at %s: answer %d: %s", method, path, n.name, code, bytes.TrimSpace(body))
	}
	return nil
}

// AwaitSetting returns when the member's PostgreSQL runs with the parameter at that value.
func (n *Node) AwaitSetting(ctx context.Context, parameter, want string) error {
	for {
		got, err := n.setting(ctx, parameter)
		if err == nil && got == want {
			return nil
		}
		if err == nil {
			err = fmt.Errorf("it is %s", got)
		}
		if !pause(ctx, pollEvery) {
			return fmt.Errorf("wait until %s has %s = %s: %w: %w", n.name, parameter, want, context.Cause(ctx), err)
		}
	}
}

func (n *Node) setting(ctx context.Context, parameter string) (value string, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, n.DSN())
	if err != nil {
		return "", fmt.Errorf("ask %s for a setting: %w", n.name, err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // read only: nothing to lose
	if err := conn.QueryRow(ctx, `SELECT current_setting($1)`, parameter).Scan(&value); err != nil {
		return "", fmt.Errorf("ask %s for a setting: %w", n.name, err)
	}
	return value, nil
}

// AwaitPause returns when the node's agent knows that the cluster is, or is no longer, in pause.
func (n *Node) AwaitPause(ctx context.Context, want bool) error {
	for {
		look, cancel := context.WithTimeout(ctx, lookTimeout)
		s, err := n.Status(look)
		cancel()
		if err == nil && s.Pause == want {
			return nil
		}
		if !pause(ctx, pollEvery) {
			return fmt.Errorf("wait until %s knows that pause is %v: %w (last: %v)", n.name, want, context.Cause(ctx), err)
		}
	}
}

// Sample is one value of GET /metrics.
type Sample struct {
	Name string
	// Labels are those in braces, without the quotes: name=value.
	Labels []string
	Value  float64
}

// Metrics reads the node's GET /metrics.
func (n *Node) Metrics(ctx context.Context) ([]Sample, error) {
	code, body, err := n.request(ctx, http.MethodGet, "/metrics", "")
	if err != nil {
		return nil, err
	}
	if code != http.StatusOK {
		return nil, fmt.Errorf("read the metrics of %s: answer %d", n.name, code)
	}
	var out []Sample
	lines := bufio.NewScanner(bytes.NewReader(body))
	for lines.Scan() {
		line := lines.Text()
		at := strings.LastIndexByte(line, ' ')
		if strings.HasPrefix(line, "#") || at < 0 {
			continue
		}
		s := Sample{Name: line[:at]}
		if s.Value, err = strconv.ParseFloat(line[at+1:], 64); err != nil {
			return nil, fmt.Errorf("read the metrics of %s: %w", n.name, err)
		}
		if name, labels, found := strings.Cut(strings.TrimSuffix(s.Name, "}"), "{"); found {
			s.Name, s.Labels = name, strings.Split(strings.ReplaceAll(labels, `"`, ""), ",")
		}
		out = append(out, s)
	}
	return out, nil
}
