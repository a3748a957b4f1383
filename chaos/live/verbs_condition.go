package live

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgregent/regent/events/journal"
	"github.com/pgregent/regent/internal/sandbox"
	"github.com/pgregent/regent/internal/sandbox/history"
)

type condition func(ctx context.Context, r *run, a []string) error

// conditionVerbs are what a member is, as it shows itself.
func conditionVerbs() []Verb {
	both := []Kind{WaitFor, Expect}
	return []Verb{
		{Kinds: both, Form: "NODE is ROLE", holds: isRole(true), Doc: "What the watcher saw last, which looks every few milliseconds."},
		{Kinds: both, Form: "NODE is not ROLE", holds: isRole(false), Doc: "The opposite."},
		{Kinds: both, Form: "a member beside NODE is primary", holds: besides, Doc: "The watcher saw another one as primary last."},
		{Kinds: both, Form: "NODE was shut down cleanly", holds: shutDown, Doc: "Its PostgreSQL is down, and its control file says that it was shut down, not cut off."},
		{Kinds: both, Form: "NODE streams", holds: streams(true), Doc: "It receives WAL from the primary and lacks less than 256 kB, as the primary says."},
		{Kinds: both, Form: "NODE doesn't stream", holds: streams(false), Doc: "There is a primary, and it doesn't stream from it, or doesn't keep up."},
		{Kinds: both, Form: "all members stream", holds: allStream, Doc: "One member is primary, and all the others stream from it and keep up."},
		{Kinds: both, Form: "the cluster is whole", holds: func(ctx context.Context, r *run, _ []string) error { return r.lab.wholeNow(ctx) },
			Doc: "All members stream, all agents say that PostgreSQL runs, writes are acknowledged, and in synchronous mode there is a standby."},
		{Kinds: both, Form: "writes are acknowledged", holds: acknowledged(true), Doc: "An insert that was sent after the line began was acknowledged."},
		{Kinds: []Kind{Expect}, Form: "no write is acknowledged", holds: acknowledged(false), Doc: "None that was sent after the line began."},
		{Kinds: both, Form: "NODE serves reads", holds: servesReads, Doc: "It answers a query, over a connection of its own."},
		{Kinds: both, Form: "PART of NODE runs", holds: runs(true), Doc: "There is such a process."},
		{Kinds: both, Form: "PART of NODE is gone", holds: runs(false), Doc: "There is none."},
		{Kinds: both, Form: "server of NODE is the one it was", holds: sameServer(true), Doc: "Its postmaster is the process that it was when the story began."},
		{Kinds: both, Form: "server of NODE is another one", holds: sameServer(false), Doc: "It has a postmaster, and that is another process."},
		{Kinds: both, Form: "timeline is the one it was", holds: sameTimeline(true), Doc: "The primary writes the timeline that was written when the story began."},
		{Kinds: both, Form: "timeline has grown", holds: sameTimeline(false), Doc: "The primary writes a later one."},
		{Kinds: both, Form: "rows written at NODE are there", holds: storyRows(true), Doc: "All that `write` put there can be read at the primary."},
		{Kinds: both, Form: "rows written at NODE are gone", holds: storyRows(false), Doc: "None of them can be read at the primary."},
	}
}

// reportVerbs are what agents say.
func reportVerbs() []Verb {
	both := []Kind{WaitFor, Expect}
	return []Verb{
		{Kinds: both, Form: "the store names NODE", holds: named(true), Doc: "Another member's agent reads its member key (`GET /cluster`)."},
		{Kinds: both, Form: "the store doesn't name NODE", holds: named(false), Doc: "Another agent finds no member key of it."},
		{Kinds: both, Form: "NODE answers COUNT at PATH", Doc: "The agent's REST API answers GET with that status code.", holds: restAnswers},
		{Kinds: both, Form: "NODE says TEXT at PATH", Doc: "The answer to GET contains the text.", holds: restSays},
		{Kinds: both, Form: "synchronous standby is NODE", Doc: "That member's agent says so.", holds: syncStandby},
		{Kinds: both, Form: "there is a synchronous standby", Doc: "An agent says that its member is one.",
			holds: anySyncStandby},
		{Kinds: both, Form: "there is no synchronous standby", Doc: "No agent that answers says that its member is one.", holds: noSyncStandby},
		{Kinds: both, Form: "journal of NODE says TEXT", Ours: true, Doc: "A record since the story began contains the text.",
			holds: func(_ context.Context, r *run, a []string) error {
				return r.at(a[0], func(n *sandbox.Node) error {
					for e, err := range journal.Read(n.JournalDir()) {
						if err == nil && e.Wall >= r.began.UnixNano() && (strings.Contains(string(e.Payload), a[1]) || e.Kind == a[1]) {
							return nil
						}
					}
					return fmt.Errorf("the journal of %s doesn't say %q", n.Name(), a[1])
				})
			}},
		{Kinds: both, Form: "log of NODE says TEXT", Ours: true, Doc: "A line since the story began contains the text.",
			holds: func(_ context.Context, r *run, a []string) error {
				return r.at(a[0], func(n *sandbox.Node) error {
					text, err := os.ReadFile(n.LogFile())
					if err != nil {
						return err
					}
					if !strings.Contains(string(text[min(r.logAt[n.Name()], len(text)):]), a[1]) {
						return fmt.Errorf("the log of %s doesn't say %q", n.Name(), a[1])
					}
					return nil
				})
			}},
	}
}

func isRole(want bool) condition {
	return func(_ context.Context, r *run, a []string) error {
		return r.at(a[0], func(n *sandbox.Node) error {
			if is := r.lab.arena.Watcher.Roles()[n.Name()]; (is == history.Role(a[1])) != want {
				return fmt.Errorf("%s is %s", n.Name(), is)
			}
			return nil
		})
	}
}

func besides(_ context.Context, r *run, a []string) error {
	return r.at(a[0], func(n *sandbox.Node) error {
		roles := r.lab.arena.Watcher.Roles()
		for member, role := range roles {
			if member != n.Name() && role == history.Primary {
				return nil
			}
		}
		return fmt.Errorf("the members are %v", roles)
	})
}

func shutDown(ctx context.Context, r *run, a []string) error {
	return r.at(a[0], func(n *sandbox.Node) error {
		if left := n.Servers(); len(left) > 0 {
			return fmt.Errorf("PostgreSQL of %s runs: processes %v", n.Name(), left)
		}
		cmd := exec.CommandContext(ctx, filepath.Join(r.lab.opt.PGBin, "pg_controldata"), n.DataDir())
		cmd.Env = append(os.Environ(), "LC_ALL=C")
		out, err := cmd.Output()
		if err != nil {
			return fmt.Errorf("pg_controldata of %s: %w", n.Name(), err)
		}
		for line := range strings.SplitSeq(string(out), "\n") {
			if state, found := strings.CutPrefix(line, "Database cluster state:"); found {
				if state = strings.TrimSpace(state); state == "shut down" || state == "shut down in recovery" {
					return nil
				}
				return fmt.Errorf("the control file of %s says %q", n.Name(), state)
			}
		}
		return fmt.Errorf("pg_controldata of %s says nothing of its state", n.Name())
	})
}

func streams(want bool) condition {
	return func(ctx context.Context, r *run, a []string) error {
		return r.at(a[0], func(n *sandbox.Node) error {
			primary, names, err := r.lab.streaming(ctx)
			if err == nil && slices.Contains(names, n.Name()) != want {
				err = fmt.Errorf("%v stream from %s", names, primary.Name())
			}
			return err
		})
	}
}

func allStream(ctx context.Context, r *run, _ []string) error {
	return r.lab.allStream(ctx)
}

func acknowledged(want bool) condition {
	return func(_ context.Context, r *run, _ []string) error {
		last := r.lab.arena.Writer.Last()
		if (last.Sent > r.stepAt) != want {
			return fmt.Errorf("the latest acknowledgement was %s ago, by %s", (r.now() - last.Acked).Round(time.Millisecond), last.Node)
		}
		return nil
	}
}

func servesReads(ctx context.Context, r *run, a []string) error {
	return r.at(a[0], func(n *sandbox.Node) error {
		var one int
		return query(ctx, n, "SELECT count(*) FROM regent_writes WHERE seq < 10", &one)
	})
}

func runs(want bool) condition {
	return func(_ context.Context, r *run, a []string) error {
		return r.at(a[1], func(n *sandbox.Node) error {
			if found := n.Find(sandbox.Part(a[0])); len(found) > 0 != want {
				return fmt.Errorf("the %s of %s: processes %v", a[0], n.Name(), found)
			}
			return nil
		})
	}
}

func sameServer(want bool) condition {
	return func(_ context.Context, r *run, a []string) error {
		return r.at(a[0], func(n *sandbox.Node) error {
			now, running := n.PostmasterPID()
			if !running || (now == r.servers[n.Name()]) != want {
				return fmt.Errorf("the postmaster of %s is %d (runs: %v), and was %d", n.Name(), now, running, r.servers[n.Name()])
			}
			return nil
		})
	}
}

func sameTimeline(want bool) condition {
	return func(ctx context.Context, r *run, _ []string) error {
		now, err := r.lab.timeline(ctx)
		if err == nil && (now == r.timeline) != want {
			err = fmt.Errorf("the timeline is %d, and was %d", now, r.timeline)
		}
		return err
	}
}

// undefinedTable is PostgreSQL's code.
const undefinedTable = "42P01"

func storyRows(want bool) condition {
	return func(ctx context.Context, r *run, a []string) error {
		leader, err := r.lab.cluster.Primary(ctx)
		if err != nil {
			return err
		}
		var n int
		err = query(ctx, leader, `SELECT count(*) FROM regent_story WHERE story = $1 AND node = $2`, &n, r.story, a[0])
		if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == undefinedTable {
			n, err = 0, nil
		}
		if err == nil && (n > 0) != want {
			err = fmt.Errorf("%d rows that were written at %s are there", n, a[0])
		}
		return err
	}
}

func named(want bool) condition {
	return func(ctx context.Context, r *run, a []string) error {
		return r.at(a[0], func(n *sandbox.Node) error {
			last := errors.New("no other agent runs")
			for _, other := range r.lab.cluster.Nodes() {
				if _, running := other.AgentPID(); other == n || !running || r.isFrozen(other) {
					continue
				}
				members, err := other.Published(ctx)
				if err != nil {
					last = err
					continue
				}
				if _, there := members[n.Name()]; there != want {
					return fmt.Errorf("%s reads the members %v", other.Name(), members)
				}
				return nil
			}
			return last
		})
	}
}

func (r *run) get(ctx context.Context, name, path string) (code int, body string, err error) {
	n, err := r.node(name)
	if err != nil {
		return 0, "", err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.RESTURL()+path, nil)
	if err != nil {
		return 0, "", err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode, string(text), errors.Join(err, resp.Body.Close())
}

func restAnswers(ctx context.Context, r *run, a []string) error {
	code, _, err := r.get(ctx, a[0], a[2])
	if err == nil && strconv.Itoa(code) != a[1] {
		err = fmt.Errorf("GET %s at %s answers %d", a[2], a[0], code)
	}
	return err
}

func restSays(ctx context.Context, r *run, a []string) error {
	_, body, err := r.get(ctx, a[0], a[2])
	if err == nil && !strings.Contains(body, a[1]) {
		err = fmt.Errorf("GET %s at %s says %s", a[2], a[0], body)
	}
	return err
}

func syncStandby(ctx context.Context, r *run, a []string) error {
	return r.at(a[0], func(n *sandbox.Node) error {
		s, err := n.Status(ctx)
		if err == nil && !s.SyncStandby {
			err = fmt.Errorf("%s is none", n.Name())
		}
		return err
	})
}

// standbys are the members that their agents call synchronous; asked is how many agents answered.
func standbys(ctx context.Context, r *run) (names []string, asked int) {
	for _, n := range r.lab.cluster.Nodes() {
		s, err := n.Status(ctx)
		if err != nil {
			continue
		}
		if asked++; s.SyncStandby {
			names = append(names, n.Name())
		}
	}
	return names, asked
}

func anySyncStandby(ctx context.Context, r *run, _ []string) error {
	names, asked := standbys(ctx, r)
	if len(names) == 0 {
		return fmt.Errorf("none of %d agents says that it is one", asked)
	}
	return nil
}

func noSyncStandby(ctx context.Context, r *run, _ []string) error {
	names, asked := standbys(ctx, r)
	if len(names) > 0 || asked == 0 {
		return fmt.Errorf("of %d agents, %v say that they are", asked, names)
	}
	return nil
}
