package config

import (
	"fmt"
	"strconv"
	"strings"
)

// Severity says what a Problem does to the agent.
type Severity int

// The severities, from harmless to fatal.
const (
	// Notice: the setting is ignored by this release, or unknown. The agent runs as
	// if it weren't there.
	Notice Severity = iota
	// Warning: the value is wrong. The agent runs, with the default or with what the
	// message says. `regent config validate` fails.
	Warning
	// Error: the agent doesn't start, because running would mean something other than
	// what the file asks for.
	Error
)

// String is the word used in front of a message.
func (s Severity) String() string {
	switch s {
	case Notice:
		return "notice"
	case Warning:
		return "warning"
	default:
		return "error"
	}
}

// Problem is one finding about a configuration, written for the operator who has to
// repair it. It never holds a secret's value.
type Problem struct {
	// Source is the file's path, or the name of an environment variable. Empty when
	// the configuration came from the store.
	Source string
	// Line and Column, counted from 1; 0 when there is no such place, as for a
	// missing key or a variable.
	Line, Column int
	// Path is the setting's dotted path, e.g. restapi.listen.
	Path string
	// Value as written, shortened, *** for secrets; empty when it doesn't matter.
	Value string
	// Message is what is wrong, Hint what to do about it.
	Message, Hint string
	Severity      Severity
	kind          problemKind
}

// String formats the problem as `SOURCE:LINE:COLUMN: path value message — hint`.
func (p Problem) String() string {
	var b strings.Builder
	if p.Source != "" {
		b.WriteString(p.Source)
		if p.Line > 0 {
			b.WriteString(":" + strconv.Itoa(p.Line))
			if p.Column > 0 {
				b.WriteString(":" + strconv.Itoa(p.Column))
			}
		}
		b.WriteString(": ")
	}
	for _, part := range []string{p.Path, p.Value} {
		if part != "" {
			b.WriteString(part + " ")
		}
	}
	b.WriteString(p.Message)
	if p.Hint != "" {
		b.WriteString(" — " + p.Hint)
	}
	return b.String()
}

// Problems is an error made of every finding at once, one per line.
type Problems []Problem

// Error joins the findings, one per line.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// Worst returns the highest severity among ps; false when there is none.
func Worst(ps []Problem) (Severity, bool) {
	worst := Notice
	for _, p := range ps {
		worst = max(worst, p.Severity)
	}
	return worst, len(ps) > 0
}

// Errors returns only the findings that forbid a start, as an error, or nil.
func Errors(ps []Problem) error {
	var bad Problems
	for _, p := range ps {
		if p.Severity == Error {
			bad = append(bad, p)
		}
	}
	if len(bad) == 0 {
		return nil
	}
	return fmt.Errorf("configuration refused:\n%w", bad)
}

func problemAt(at pos, sev Severity, path, message, hint string) Problem {
	return Problem{
		Source: at.Source, Line: at.Line, Column: at.Column,
		Path: path, Message: message, Hint: hint, Severity: sev,
	}
}

// problemKind groups the notices that become one line in the log.
type problemKind uint8

const (
	other problemKind = iota
	notHonoured
	unknownKey
)
