package live

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pgregent/regent/chaos/judge"
	"github.com/pgregent/regent/internal/sandbox"
)

// Verb is one form that a line may have. The table of them is the language.
type Verb struct {
	// Kinds are the beginnings that it goes with.
	Kinds []Kind
	// Form is its words; those in capitals are arguments (see Arguments).
	Form string
	// Doc is its contract, a sentence.
	Doc string
	// Needs is what a cluster must have been made with.
	Needs Need
	// Ours: it is about something that only Regent has. Where Patroni runs the line is left out.
	Ours bool

	// One of them. holds returns nil when the condition holds, and else says what is instead.
	do    func(ctx context.Context, r *run, args []string) error
	holds func(ctx context.Context, r *run, args []string) error
	bound func(args []string) (judge.Bound, error)
	allow func(r *run)
}

// Need is what a verb needs of the cluster.
type Need string

// The needs.
const (
	NoNeed Need = ""
	// Launcher: PostgreSQL is started through a program that can be told to hang or to fail.
	Launcher Need = "launcher"
	// Cables: every node is a host with a cable of its own.
	Cables Need = "cables"
	// Servers: the store's servers are several, and can be told apart.
	Servers Need = "servers"
	// SmallDisks: pg_wal lies on a small disk of its own.
	SmallDisks Need = "disks"
)

// Argument is a word in capitals in a form.
type Argument struct {
	Name, Doc string
	check     func(word string) error
}

// Arguments lists them.
func Arguments() []Argument {
	parts := make([]string, 0, len(sandbox.Parts()))
	for _, p := range sandbox.Parts() {
		parts = append(parts, string(p))
	}
	return []Argument{
		{"NODE", "`primary`, `replica` or `other`: what that member was when the story began, in synchronous mode with `replica` as the " +
			"synchronous standby; `leader`: whichever is primary at that moment", oneOf("primary", "replica", "other", "leader")},
		{"PART", "`" + strings.Join(parts, "`, `") + "`; a node is all that runs on it", oneOf(parts...)},
		{"ROLE", "`primary`, `replica` or `down`, as PostgreSQL itself answers", oneOf("primary", "replica", "down")},
		{"STORE", "`store`, `peers` (the other members' PostgreSQL, REST and raft), or `everything`", oneOf("store", "peers", "everything")},
		{"SHARE", "`minority` or `majority`", oneOf("minority", "majority")},
		{"SPAN", "a length of time: `300ms`, `2s`, `ttl`, `2ttl+5s`", func(w string) error { _, err := parseSpan(w); return err }},
		{"COUNT", "a whole number", isCount},
		{"NAME=VALUE", "a dynamic setting; `NAME=null` takes it back", func(w string) error {
			if name, value, ok := strings.Cut(w, "="); !ok || name == "" || value == "" {
				return fmt.Errorf("%q isn't NAME=VALUE", w)
			}
			return nil
		}},
		{"PATH", "a path of the REST API: `/replica`", func(w string) error {
			if !strings.HasPrefix(w, "/") {
				return fmt.Errorf("%q is no path; it begins with /", w)
			}
			return nil
		}},
		{"TEXT", "words between double quotes, unless it is one word", func(string) error { return nil }},
	}
}

func oneOf(words ...string) func(string) error {
	return func(w string) error {
		if !slices.Contains(words, w) {
			return fmt.Errorf("%q is none of %s", w, strings.Join(words, ", "))
		}
		return nil
	}
}

func isCount(w string) error {
	if n, err := strconv.Atoi(w); err != nil || n < 0 {
		return fmt.Errorf("%q is no whole number", w)
	}
	return nil
}

// argument returns what a word of a form stands for; nil: itself.
func argument(word string) *Argument {
	for _, a := range Arguments() {
		if a.Name == word {
			return &a
		}
	}
	return nil
}

// Verbs is the language.
func Verbs() []Verb {
	return slices.Concat(processVerbs(), trapVerbs(), operatorVerbs(), hostVerbs(), conditionVerbs(), reportVerbs(), figureVerbs())
}

// match finds the verb of a line, with its arguments in order.
func match(k Kind, words []string) (*Verb, []string, error) {
	best, most, why := "", 0, error(nil)
	for _, v := range Verbs() {
		if !slices.Contains(v.Kinds, k) {
			continue
		}
		args, fits, err := v.take(words)
		if err == nil && fits == len(words) && fits == len(strings.Fields(v.Form)) {
			return &v, args, nil
		}
		if fits > most {
			best, most, why = v.Form, fits, err
		}
	}
	switch {
	case why != nil:
		return nil, nil, fmt.Errorf("%s %s: %w", k, best, why)
	case best != "":
		return nil, nil, fmt.Errorf("\"%s %s\" is no step; the nearest is: %s %s", k, strings.Join(words, " "), k, best)
	}
	return nil, nil, fmt.Errorf("\"%s %s\" is no step", k, strings.Join(words, " "))
}

// take compares words with the form and returns how many fit.
func (v Verb) take(words []string) (args []string, fits int, err error) {
	form := strings.Fields(v.Form)
	for i, w := range words {
		if i >= len(form) {
			return nil, fits, nil
		}
		a := argument(form[i])
		switch {
		case a != nil:
			if err := a.check(w); err != nil {
				return nil, fits, err
			}
			args = append(args, w)
		case w != form[i]:
			return nil, fits, nil
		}
		fits++
	}
	return args, fits, nil
}
