package api

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/fsm"
)

// The scripts in testdata hold the bytes of the API, endpoint by endpoint. Line ends
// of HTTP are shown as \r, an answer without a final newline ends in ¶. Run
// `go test ./internal/api -rewrite` after a change, and read the diff.
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		w := newWorld(t)
		w.run()
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			w.t = t
			return w.play(d)
		})
	})
}

// play carries out one command of a script.
func (w *world) play(d *datadriven.TestData) string {
	switch d.Cmd {
	case "member":
		return w.playMember(d)
	case "store":
		w.put(strings.Split(strings.TrimSpace(d.Input), "\n")...)
		return ""
	case "http":
		head, body, _ := strings.Cut(d.Input, "\n\n")
		raw := strings.ReplaceAll(head, "\n", "\r\n") + "\r\n"
		if body != "" && !strings.Contains(head, "Content-Length") {
			raw += fmt.Sprintf("Content-Length: %d\r\n", len(body))
		}
		return show(w.say(raw + "\r\n" + body))
	case "status":
		var out strings.Builder
		for _, line := range strings.Split(strings.TrimSpace(d.Input), "\n") {
			method, path, _ := strings.Cut(line, " ")
			status, body := w.send(method, path, "")
			if body != "" && !strings.HasPrefix(body, "{") {
				w.t.Errorf("%s: not a status or document: %q", line, body)
			}
			fmt.Fprintf(&out, "%s: %s\n", line, status)
		}
		return out.String()
	case "stored":
		return w.stored(d.CmdArgs[0].Key) + "\n"
	default:
		w.t.Fatalf("%s: unknown command %s", d.Pos, d.Cmd)
		return ""
	}
}

// playMember sets the member's state: leader or replica, then what differs.
func (w *world) playMember(d *datadriven.TestData) string {
	s := leaderState()
	w.agent.mu.Lock()
	s.Store = w.agent.state.Store
	w.agent.mu.Unlock()
	if w.unhang != nil {
		w.unhang()
		w.unhang = nil
	}
	w.server.opt.Compat = ""
	hang := false
	for _, arg := range d.CmdArgs {
		switch arg.Key {
		case "leader":
		case "replica":
			store := s.Store
			s = replicaState()
			s.Store = store
		case "compat":
			w.server.opt.Compat = arg.Vals[0]
		case "paused":
			s.Settings.Pause = true
		case "expired":
			s.Lease.Sent = nowMono.Add(-30 * time.Second)
		case "silent-store":
			s.Store.DownSince, s.Store.At = nowMono.Add(-31*time.Second), nowMono.Add(-32*time.Second)
		case "overdue": // the heartbeat, by so long
			late, err := time.ParseDuration(arg.Vals[0])
			if err != nil {
				w.t.Fatal(err)
			}
			s.NextTick = nowMono.Add(-late)
		case "adopted":
			s.Keeper.Adopted = true
		case "degraded":
			s.Journal = "no space left on device"
		case "tags":
			s.Settings.Tags.Raw = json.RawMessage(arg.Vals[0])
			s.Settings.Tags.NoLoadBalance = strings.Contains(arg.Vals[0], `"noloadbalance":true`)
		case "down":
			s.Phase = fsm.Reviving
			p := &s.Postgres.State
			p.Running, p.Ready, p.PID, p.Standbys = false, false, 0, nil
			s.Postgres.Down = &events.PostgresDown{Signal: 9}
		case "starting":
			s.Postgres.State.Ready, s.Postgres.State.Why = false, "the database system is starting up"
			s.Phase = fsm.Starting
		case "empty":
			s.Phase = fsm.Cloning
			s.Postgres.State = events.PostgresState{Data: events.DataDir{Content: events.DataEmpty}}
		case "not-streaming":
			s.Postgres.State.Streaming = false
		case "pending-restart":
			s.Postgres.State.PendingRestart = true
			s.Postgres.State.PendingReason = json.RawMessage(`{"max_connections":{"old_value":"80","new_value":"60"}}`)
		case "hung":
			hang = true
		default:
			w.t.Fatalf("%s: unknown argument %s", d.Pos, arg.Key)
		}
	}
	w.agent.mu.Lock()
	w.agent.server = s.Postgres.State
	w.agent.mu.Unlock()
	if hang {
		w.unhang = w.agent.hang()
	}
	w.agent.change(func(old *fsm.State) { *old = s })
	return ""
}

func show(answer string) string {
	end := "¶\n"
	if strings.HasSuffix(answer, "\n") {
		end = ""
	}
	return strings.ReplaceAll(answer, "\r\n", "\\r\n") + end
}
