package interop

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pgregent/regent/internal/sandbox"
)

// Patroni's least timings bind from the moment in which the first Patroni is there, until the last
// one has gone (S7): the primary takes a lease of the longer ttl without losing the leadership.
func TestPatronisFloorsBindWhileOneIsThere(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("real clusters are left out of -short")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	c := Start(t, Options{
		Store: "etcd3", Members: []sandbox.Program{r, p},
		TTL: 5 * time.Second, LoopWait: time.Second, RetryTimeout: time.Second,
	})
	regent, patroni := c.Nodes()[0], c.Nodes()[1]
	if err := regent.PowerOn(); err != nil {
		t.Fatal(err)
	}
	// The stop budget is a tenth of the lease that is held.
	awaitBudget(ctx, t, regent, 500)
	if err := patroni.PowerOn(); err != nil {
		t.Fatal(err)
	}
	awaitBudget(ctx, t, regent, 2000)
	log, err := os.ReadFile(regent.LogFile())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"ttl 5s is used as 20s", "retry_timeout 1s is used as 3s"} {
		if !strings.Contains(string(log), want) {
			t.Errorf("the log doesn't say that %s", want)
		}
	}
	if leader, err := c.AwaitStreaming(ctx); err != nil || leader != regent {
		t.Fatalf("%v leads: %v", leader, err)
	}
	if err := patroni.StopAgent(ctx); err != nil {
		t.Fatal(err)
	}
	awaitBudget(ctx, t, regent, 500)
	if strings.Contains(regent.Tail(1000), "demoting") {
		t.Error("the primary was demoted meanwhile")
	}
}

func awaitBudget(ctx context.Context, t *testing.T, n *sandbox.Node, milliseconds int) {
	t.Helper()
	for {
		own, err := ownStatus(ctx, n)
		if err == nil && own.StopBudgetMS == milliseconds && own.Phase == "leading" {
			return
		}
		if !wait(ctx) {
			t.Fatalf("%s has a stop budget of %d ms, not %d: %v, %v", n.Name(), own.StopBudgetMS, milliseconds, own, err)
		}
	}
}

// own is what a Regent says of itself at GET /patroni.
type own struct {
	Phase        string `json:"phase"`
	Fencing      string `json:"fencing"`
	StopBudgetMS int    `json:"stop_budget_ms"`
}

func ownStatus(ctx context.Context, n *sandbox.Node) (own, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.RESTURL()+"/patroni", nil)
	if err != nil {
		return own{}, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return own{}, err
	}
	defer func() { _ = resp.Body.Close() }() // read to its end
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return own{}, err
	}
	var doc struct{ Regent own }
	if err := json.Unmarshal(body, &doc); err != nil {
		return own{}, fmt.Errorf("%s: %w", body, err)
	}
	return doc.Regent, nil
}
