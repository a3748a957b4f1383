package consul

import (
	"context"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/pgregent/regent/dcs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// opened is a client of a server, for a cluster of its own unless it is told otherwise.
func opened(t *testing.T, cfg Config) *Store {
	t.Helper()
	if cfg.Base == "" {
		cfg.Base, cfg.Scope = dcs.BasePath("service", "main"), "main"
	}
	s, err := Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// usable waits until a store takes writes.
func usable(t *testing.T, s dcs.Store) {
	t.Helper()
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); pause(20 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		_, err = s.Commit(ctx, dcs.Txn{Writes: []dcs.Write{dcs.Put("usable", nil)}})
		if err == nil {
			// A session needs the server's node in the catalogue.
			var l dcs.Lease
			if l, err = s.Grant(ctx, "", 30*time.Second); err == nil {
				err = s.Revoke(ctx, l.ID)
			}
		}
		cancel()
		if err == nil {
			return
		}
	}
	t.Fatalf("consul takes no writes: %v", err)
}

// pause lets real time pass in a loop that waits for a condition.
func pause(d time.Duration) { rest(context.Background(), d) }
