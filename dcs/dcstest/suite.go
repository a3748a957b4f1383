package dcstest

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pgregent/regent/dcs"
)

// T is what a property needs of a test. *testing.T is one; the suite's own tests
// bring another, which expects complaints.
type T interface {
	Helper()
	Error(args ...any)
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Logf(format string, args ...any)
	Failed() bool
}

// property is a sentence of the contract, or several that need the same preparation.
type property struct {
	name string
	run  func(*suite)
	// needs lists the faults it can't do without. Any of several that will do are
	// the property's own business.
	needs []Kind
}

// sentences need nothing but clients, and don't disturb each other.
func sentences() []property {
	return []property{
		{name: "view: linearizable reads see every write completed before", run: (*suite).linearizableView},
		{name: "view: local reads are never older than they say", run: (*suite).localView},
		{name: "view: keys are sorted, values are whole", run: (*suite).wholeView},
		{name: "watch: a whole view at once, then one after every change", run: (*suite).watchChanges},
		{name: "watch: a slow reader misses intermediate views, never the latest", run: (*suite).watchSlowly},
		{name: "watch: revisions never go backwards", run: (*suite).watchForwards},
		{name: "watch: each view is the whole store at its revision", run: (*suite).consistentCuts},
		{name: "watch: ends with its context", run: (*suite).watchEnds},
		{name: "commit: each guard", run: (*suite).guards},
		{name: "commit: three writes under three guards, at one revision or not at all", run: (*suite).allOrNothing},
		{name: "commit: nobody sees half a transaction", run: (*suite).neverHalf},
		{name: "commit: created and version", run: (*suite).versions},
		{name: "commit: deleting an absent key is no error", run: (*suite).deleteAbsent},
		{name: "commit: what can't be done is broken", run: (*suite).invalid},
		{name: "commit: one of many wins", run: (*suite).oneWinner},
		{name: "commit: no increment is lost", run: (*suite).counter},
		{name: "lease: ends on time, not before", run: (*suite).expiry},
		{name: "lease: renewing keeps it, and lists its keys", run: (*suite).renew},
		{name: "lease: renewed at its very end, it lives on or is gone", run: (*suite).edge},
		{name: "lease: a write with a lease that is gone is refused", run: (*suite).leaseGone},
		{name: "lease: attaching and detaching", run: (*suite).attach},
		{name: "lease: revoking deletes its keys at once", run: (*suite).revoke},
		{name: "lease: ids", run: (*suite).ids},
		{name: "calls obey their context", run: (*suite).contexts},
		{name: "close: leases and keys stay, calls fail", run: (*suite).closing},
		{name: "history: linearizable, leases included", run: (*suite).history},
	}
}

// afflictions disturb everyone, so each runs alone.
func afflictions() []property {
	kill, pause, isolate := []Kind{KillServer}, []Kind{PauseServer}, []Kind{IsolateServer}
	return []property{
		{name: "fault: the leader is killed: nothing is lost, watches go on", run: (*suite).leaderKilled, needs: kill},
		{name: "fault: the leader is killed: leases end neither early nor late", run: (*suite).leasesOutliveLeaders, needs: kill},
		{name: "fault: a minority is cut off: it shows nothing stale, the others go on", run: (*suite).minority, needs: isolate},
		{name: "fault: no majority: calls end in time and claim nothing", run: (*suite).noMajority, needs: isolate},
		{name: "fault: the leader stands still: thawed, it claims nothing old", run: (*suite).thawed, needs: pause},
		{name: "fault: a lost reply is an unknown outcome, of something done once", run: (*suite).lostReplies, needs: []Kind{LoseReplies}},
		{name: "fault: a watch resumes when its link was cut", run: (*suite).watchResumes, needs: []Kind{CutClient}},
		{name: "fault: a watch resumes across compaction", run: (*suite).watchCompacted, needs: []Kind{Compact}},
		{name: "fault: histories under random faults are linearizable, leases included", run: (*suite).storm},
	}
}

// Run runs the suite on the store that newEnv makes: the sentences side by side, then the
// faults one after another.
func Run(t *testing.T, newEnv func(t *testing.T) Env) {
	env, err := newEnv(t).withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	if storm, err := time.ParseDuration(os.Getenv("REGENT_CONFORMANCE_STORM")); err == nil {
		env.Storm = storm
	}
	results := newTable(env.Backend)
	t.Cleanup(func() { results.publish(t, os.Getenv("REGENT_CONFORMANCE")) })
	t.Run("sentence", func(t *testing.T) {
		for _, p := range append(sentences(), scopes(env, results)...) {
			t.Run(p.name, func(t *testing.T) {
				t.Parallel()
				results.run(t, p, env)
			})
		}
	})
	for _, p := range afflictions() {
		if why := lacking(p, env.Faults); why != "" {
			results.lacks(p.name, why)
			t.Logf("%s: not shown, because the harness can't %s", p.name, why)
			continue
		}
		t.Run(p.name, func(t *testing.T) { results.run(t, p, env) })
	}
}

const scopeName = "scope: another cluster's keys and watches are its own"

// scopes is the sentence that needs a second cluster on the same servers.
func scopes(env Env, results *table) []property {
	p := property{name: scopeName, run: (*suite).elsewhere}
	if env.Elsewhere == nil {
		results.lacks(p.name, env.NoElsewhere)
		return nil
	}
	return []property{p}
}

func lacking(p property, f Faults) string {
	for _, k := range p.needs {
		if why := f.Lacks(k); why != "" {
			return fmt.Sprintf("%s: %s", k, why)
		}
	}
	return ""
}

// suite is one running property.
type suite struct {
	T
	Env
	ctx    context.Context
	prefix string
	note   string // a figure for the table
}

// examine runs a property and returns its note. It doesn't return when the property
// ends the goroutine, as a test's Fatal does.
func examine(ctx context.Context, t T, p property, env Env) *suite {
	s := &suite{T: t, Env: env, prefix: prefixOf(p.name)}
	s.Stores = make([]dcs.Store, len(env.Stores))
	for i, store := range env.Stores {
		s.Stores[i] = judge{store, t, env.Overrun}
	}
	ctx, cancel := context.WithTimeout(ctx, 3*env.Patience+env.Storm)
	defer cancel()
	s.ctx = ctx
	p.run(s)
	return s
}

func prefixOf(name string) string {
	return "conformance/" + strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' {
			return r
		}
		return '-'
	}, name)
}

func (s *suite) key(name string) string { return s.prefix + "/" + name }

func (s *suite) store(i int) dcs.Store { return s.Stores[i%len(s.Stores)] }
