package live

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pgregent/regent/chaos/judge"
	"github.com/pgregent/regent/internal/sandbox"
)

// figureVerbs bound what the judge measures over the whole story, whatever their place in it.
func figureVerbs() []Verb {
	docs := map[judge.Figure]string{
		judge.Outage:    "The longest time from one acknowledged insert to the next.",
		judge.Lost:      "Acknowledged rows that are gone at the end. Without `allow lost rows` none may be.",
		judge.Failed:    "Inserts that were sent and not acknowledged; their connection broke, or they were refused.",
		judge.Two:       "For how long two members were out of recovery at once, seen by a watcher at 100 Hz or more. Without `allow two primaries` never.",
		judge.Streaming: "From the first `do` until all members stream for good.",
		judge.AsPrimary: "From that member's first sighting as a primary in the story to its last.",
		judge.Noticed:   "From the end of that member's server until its agent had journaled it; after `stop postgres` or `crash postgres`.",
	}
	var out []Verb
	for _, f := range judge.Figures() {
		sides := []string{"at most"}
		if f == judge.Outage || f == judge.Two {
			sides = append(sides, "at least")
		}
		for _, side := range sides {
			v := Verb{Kinds: []Kind{Expect}, Form: figureForm(f) + " " + side + " SPAN", Doc: docs[f], Ours: f == judge.Noticed}
			if f.Count() {
				v.Form = figureForm(f) + " " + side + " COUNT"
			}
			v.bound = boundOf(f, side == "at least")
			out = append(out, v)
		}
	}
	return append(out,
		Verb{Kinds: []Kind{Allow}, Form: "lost rows", allow: func(r *run) { r.mayLose = true },
			Doc: "Asynchronous replication promises nothing for this story. In synchronous mode it is no excuse."},
		Verb{Kinds: []Kind{Allow}, Form: "two primaries", allow: func(r *run) { r.mayBeTwo = true },
			Doc: "They belong to the story. For how long is measured, and may be bounded."},
	)
}

func figureForm(f judge.Figure) string {
	if f == judge.AsPrimary || f == judge.Noticed {
		return string(f) + " of NODE"
	}
	return string(f)
}

// boundOf leaves a span in TTLs open: the bound that it returns is resolved where the lease is known.
func boundOf(f judge.Figure, atLeast bool) func(args []string) (judge.Bound, error) {
	return func(args []string) (judge.Bound, error) {
		b := judge.Bound{Figure: f, AtLeast: atLeast}
		if strings.HasSuffix(figureForm(f), "NODE") {
			b.Node = args[0]
		}
		value := args[len(args)-1]
		if f.Count() {
			b.Value = int64(count(value))
			return b, nil
		}
		_, err := parseSpan(value)
		return b, err
	}
}

// resolve makes the bound of a step one of this run.
func (r *run) resolve(s Step) (judge.Bound, error) {
	b, err := s.verb.bound(s.args)
	if err != nil {
		return b, err
	}
	if b.Node != "" {
		n, err := r.node(b.Node)
		if err != nil {
			return b, err
		}
		b.Node = n.Name()
	}
	if !b.Figure.Count() {
		span, err := parseSpan(s.args[len(s.args)-1])
		if err != nil {
			return b, err
		}
		b.Value = int64(span.Of(r.lab.cluster.TTL()))
	}
	return b, nil
}

// count reads what was checked when it was parsed.
func count(word string) int {
	n, err := strconv.Atoi(word)
	if err != nil {
		panic(fmt.Sprintf("an unchecked number: %q", word))
	}
	return n
}

// needs are what its verbs need.
func (s *Script) needs() []Need {
	var out []Need
	for _, st := range s.Steps {
		if n := st.verb.Needs; n != NoNeed && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

// labOn is the cluster that it is replayed on.
func (s *Script) labOn(k sandbox.StoreKind) labKey {
	key := labKey{store: k, program: sandbox.Regent, fencing: s.Fencing, disks: slices.Contains(s.needs(), SmallDisks)}
	switch {
	case k == sandbox.RaftStore:
	case slices.Contains(s.needs(), Servers):
		key.servers = 3
	default:
		key.servers = 1
	}
	return key
}
