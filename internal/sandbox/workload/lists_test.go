package workload

import (
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgregent/regent/internal/sandbox/history"
	"github.com/pgregent/regent/pgmgr/pgtest"
)

// closedUntil takes what is closed until n appends were acknowledged to clients that began after
// a moment.
func closedUntil(t *testing.T, l *Lists, after time.Duration, n int) (ops []history.ListOp) {
	t.Helper()
	ctx := limited(t)
	for count := 0; count < n; {
		more, err := l.Closed(ctx)
		if err == nil {
			ops = append(ops, more...)
			for _, op := range more {
				if op.Append != 0 && !op.Unknown && op.Sent > after {
					count++
				}
			}
		}
		if !pause(ctx, 100*time.Millisecond) {
			t.Fatalf("only %d appends are acknowledged (%v)", count, err)
		}
	}
	return ops
}

func TestListsAreAppendedToReadAndClosed(t *testing.T) {
	s := newServer(t)
	postmaster := s.start(false)
	origin := time.Now()
	l := NewLists(ListsConfig{
		DSN: s.dsn() + "&target_session_attrs=read-write", Nodes: map[int]string{s.port: "a"},
		Members: []Target{{Name: "a", DSN: s.dsn()}}, Origin: origin,
	})
	stop := run(t, l)
	ops := closedUntil(t, l, 0, 20)
	if err := postmaster.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	pgtest.KillIn(t, s.dir)
	_ = postmaster.Wait() // it was killed; a zombie would look alive to the next one
	again := time.Since(origin)
	s.start(false)
	ops = append(ops, closedUntil(t, l, again, 20)...)
	stop()

	last := map[int64][]int64{} // by key: what the last read of each list showed
	reads := 0
	for _, op := range ops {
		switch {
		case op.Client == -1:
			if _, twice := last[op.Key]; twice {
				t.Errorf("list %d was closed twice", op.Key)
			}
			last[op.Key] = op.Values
		case op.Append == 0:
			reads++
		}
		if op.Node != "a" || op.Replica || op.Answered < op.Sent {
			t.Errorf("a single primary answered %+v", op)
		}
	}
	if reads == 0 {
		t.Error("nothing was read")
	}
	for _, op := range ops {
		if op.Append == 0 || op.Unknown {
			continue
		}
		if len(op.Values) == 0 || op.Values[len(op.Values)-1] != op.Append {
			t.Errorf("the append of %d was answered by %v", op.Append, op.Values)
		}
		if !slices.Contains(last[op.Key], op.Append) {
			t.Errorf("%d isn't in list %d at last, which is %v", op.Append, op.Key, last[op.Key])
		}
	}
}
