package dcstest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"
)

// table collects what a run on one backend showed.
type table struct {
	mu      sync.Mutex // guards results
	results results
}

// results of one backend, as they are left in a folder for Tabulate.
type results struct {
	Backend    string
	Properties map[string]cellOf
}

// cellOf is a cell of the table. Lacks: why the property couldn't be shown.
type cellOf struct {
	Passed bool          `json:",omitempty"`
	Lacks  string        `json:",omitempty"`
	Note   string        `json:",omitempty"`
	Took   time.Duration `json:",omitempty"`
}

func newTable(backend string) *table {
	return &table{results: results{Backend: backend, Properties: map[string]cellOf{}}}
}

func (t *table) set(name string, c cellOf) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.results.Properties[name] = c
}

func (t *table) lacks(name, why string) { t.set(name, cellOf{Lacks: why}) }

// run counts a property as failed unless it ends well.
func (t *table) run(test *testing.T, p property, env Env) {
	began := time.Now()
	t.set(p.name, cellOf{})
	s := examine(test.Context(), test, p, env)
	t.set(p.name, cellOf{Passed: !test.Failed(), Note: s.note, Took: time.Since(began)})
}

// publish leaves the results in a folder, unless it is "".
func (t *table) publish(test *testing.T, dir string) {
	if dir == "" {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	data, err := json.MarshalIndent(t.results, "", "  ")
	if err == nil {
		name := strings.NewReplacer(" ", "-", "/", "-", ",", "").Replace(t.results.Backend) + ".json"
		err = os.WriteFile(filepath.Join(dir, name), data, 0o644)
	}
	if err != nil {
		test.Errorf("leave the results of %s: %v", t.results.Backend, err)
	}
}

// Tabulate renders the results that runs left in a folder as one table in Markdown,
// properties × backends, with the figures and what is lacking below. An unreadable file,
// or none, is an error.
func Tabulate(dir string) (string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil || len(files) == 0 {
		return "", fmt.Errorf("results in %s: none (%w)", dir, orNotExist(err))
	}
	sort.Strings(files)
	var columns []results
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("results: %w", err)
		}
		var r results
		if err := json.Unmarshal(data, &r); err != nil {
			return "", fmt.Errorf("results in %s: %w", file, err)
		}
		columns = append(columns, r)
	}
	return render(columns), nil
}

func orNotExist(err error) error {
	if err != nil {
		return err
	}
	return os.ErrNotExist
}

func render(columns []results) string {
	var b, below strings.Builder
	head, rule := "| Property |", "|---|"
	for _, c := range columns {
		head += " " + c.Backend + " |"
		rule += "---|"
	}
	fmt.Fprintf(&b, "%s\n%s\n", head, rule)
	for _, name := range names(columns) {
		fmt.Fprintf(&b, "| %s |", name)
		for _, column := range columns {
			c, ran := column.Properties[name]
			fmt.Fprintf(&b, " %s |", c.mark(ran))
			switch {
			case c.Lacks != "":
				fmt.Fprintf(&below, "* %s, %s: not shown: %s\n", column.Backend, name, c.Lacks)
			case c.Note != "":
				fmt.Fprintf(&below, "* %s, %s: %s\n", column.Backend, name, c.Note)
			}
		}
		b.WriteString("\n")
	}
	return b.String() + "\n" + below.String()
}

func (c cellOf) mark(ran bool) string {
	switch {
	case !ran:
		return "not run"
	case c.Lacks != "":
		return "–"
	case c.Passed:
		return "yes"
	default:
		return "**NO**"
	}
}

// names of the properties: first those that the suite has, in its order, then others.
func names(columns []results) []string {
	var out []string
	known := map[string]bool{}
	for _, p := range append(append(sentences(), property{name: scopeName}), afflictions()...) {
		out, known[p.name] = append(out, p.name), true
	}
	var rest []string
	for _, c := range columns {
		for name := range c.Properties {
			if !known[name] {
				rest, known[name] = append(rest, name), true
			}
		}
	}
	sort.Strings(rest)
	return append(out, rest...)
}
