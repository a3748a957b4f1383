package live

import (
	"embed"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/pgregent/regent/internal/sandbox"
)

// Kind is how a line of a script begins: what is to be made of it.
type Kind string

// The kinds.
const (
	Do      Kind = "do"
	WaitFor Kind = "wait for"
	Expect  Kind = "expect"
	Allow   Kind = "allow"
)

// Kinds lists them.
func Kinds() []Kind { return []Kind{Do, WaitFor, Expect, Allow} }

// Text is the three cells of a row of the failure table.
type Text struct{ Where, Scenario, Action string }

// Script is one scenario.
type Script struct {
	// Name is the file's, without its ending.
	Name string
	// Row is the number in the document's table, or a word beyond it.
	Row string
	// English and Chinese are the row in both languages; the second is the document's own, and
	// empty beyond the document.
	English, Chinese Text
	// Asserts says in a sentence what must come of it.
	Asserts string
	// Fencing is keeper or off.
	Fencing string
	// Stores are those that it is for.
	Stores []sandbox.StoreKind
	// Settings are the dynamic settings that it needs, as NAME=VALUE.
	Settings []string
	Steps    []Step
}

// Step is one line.
type Step struct {
	Line int
	Kind Kind
	// Text is the line as it was written.
	Text string
	// On are the stores on which it is done; none: all.
	On []sandbox.StoreKind
	// Within is the deadline, For how long a condition must hold.
	Within, For Span

	verb *Verb
	args []string
}

// Synchronous reports that it wants synchronous mode.
func (s *Script) Synchronous() bool { return slices.Contains(s.Settings, "synchronous_mode=true") }

// Span is a length of time that may depend on the lease: so many ttl, and so much more.
type Span struct {
	TTLs  float64
	Fixed time.Duration
}

// Of is the span under a lease of that length.
func (s Span) Of(ttl time.Duration) time.Duration {
	return time.Duration(s.TTLs*float64(ttl)) + s.Fixed
}

// parseSpan reads 300ms, 2s, ttl, 2ttl, ttl+5s.
func parseSpan(text string) (Span, error) {
	var s Span
	for term := range strings.SplitSeq(text, "+") {
		if number, isTTL := strings.CutSuffix(term, "ttl"); isTTL {
			n := 1.0
			if number != "" {
				if _, err := fmt.Sscanf(number+" ", "%g ", &n); err != nil || n <= 0 {
					return Span{}, fmt.Errorf("%q is no length of time: %q doesn't count ttls", text, number)
				}
			}
			s.TTLs += n
			continue
		}
		d, err := time.ParseDuration(term)
		if err != nil || d < 0 {
			return Span{}, fmt.Errorf("%q is no length of time; write 300ms, 2s, ttl, 2ttl or ttl+5s", text)
		}
		s.Fixed += d
	}
	return s, nil
}

//go:embed scenarios/*.txt
var files embed.FS

// Scripts returns all scripts of the suite, in the order of their files.
func Scripts() ([]*Script, error) {
	entries, err := files.ReadDir("scenarios")
	if err != nil {
		return nil, fmt.Errorf("read the scenarios: %w", err)
	}
	var out []*Script
	for _, e := range entries {
		text, err := files.ReadFile(path.Join("scenarios", e.Name()))
		if err != nil {
			return nil, fmt.Errorf("read the scenarios: %w", err)
		}
		s, err := Parse(strings.TrimSuffix(e.Name(), ".txt"), string(text))
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}
