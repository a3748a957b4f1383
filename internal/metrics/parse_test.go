package metrics

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// family is a metric family as a scraper reads it.
type family struct {
	kind    string
	help    string
	samples map[string]float64 // by name{labels}
	order   []string
}

var sampleLine = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*) ?(?:\{((?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\n"])*",?)*)\})? (\S+)$`)

// parse reads a page as strictly as `promtool check metrics` does: help and type once per
// family and before its samples, families in one piece, no sample twice, histograms
// cumulative with a +Inf bucket that equals the count.
func parse(t *testing.T, text string) map[string]*family {
	t.Helper()
	out := map[string]*family{}
	if !strings.HasSuffix(text, "\n") {
		t.Error("the page doesn't end with a newline")
	}
	current := ""
	for i, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		fail := func(format string, args ...any) {
			t.Helper()
			t.Errorf("line %d, %q: %s", i+1, line, fmt.Sprintf(format, args...))
		}
		if rest, ok := strings.CutPrefix(line, "# HELP "); ok {
			name, help, _ := strings.Cut(rest, " ")
			if out[name] != nil {
				fail("a second help, or a family in two pieces")
			}
			out[name], current = &family{help: help, samples: map[string]float64{}}, name
			continue
		}
		if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, kind, _ := strings.Cut(rest, " ")
			f := out[name]
			if f == nil || name != current || f.kind != "" || len(f.order) > 0 {
				fail("a type out of place")
				continue
			}
			f.kind = kind
			continue
		}
		if strings.HasPrefix(line, "#") {
			continue
		}
		m := sampleLine.FindStringSubmatch(line)
		if m == nil {
			fail("no sample")
			continue
		}
		f := out[current]
		base := m[1]
		if f != nil && f.kind == "histogram" {
			base = strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(base, "_bucket"), "_sum"), "_count")
		}
		if f == nil || f.kind == "" || base != current {
			fail("a sample outside its family")
			continue
		}
		v, err := strconv.ParseFloat(m[3], 64)
		key := m[1] + "{" + m[2] + "}"
		if _, twice := f.samples[key]; twice || err != nil {
			fail("twice, or no number: %v", err)
		}
		f.samples[key] = v
		f.order = append(f.order, key)
	}
	for name, f := range out {
		if len(f.order) == 0 || f.kind == "" {
			t.Errorf("%s has no samples or no type", name)
		}
		if f.kind == "histogram" {
			f.checkHistogram(t, name)
		}
	}
	return out
}

var lePart = regexp.MustCompile(`,?le="([^"]*)"`)

func (f *family) checkHistogram(t *testing.T, name string) {
	t.Helper()
	last, bound, inf := map[string]float64{}, map[string]float64{}, map[string]float64{}
	for _, key := range f.order {
		rest, ok := strings.CutPrefix(key, name+"_bucket")
		if !ok {
			continue
		}
		m := lePart.FindStringSubmatch(rest)
		if m == nil {
			t.Errorf("%s has no le", key)
			continue
		}
		le, err := strconv.ParseFloat(m[1], 64)
		group := lePart.ReplaceAllString(rest, "")
		if old, seen := bound[group]; err != nil || seen && le <= old || f.samples[key] < last[group] {
			t.Errorf("%s: bounds or counts don't rise (%v)", key, err)
		}
		bound[group], last[group] = le, f.samples[key]
		if m[1] == "+Inf" {
			inf[group] = f.samples[key]
		}
	}
	if len(last) == 0 {
		t.Errorf("%s has no buckets", name)
	}
	for group := range last {
		count, ok := f.samples[name+"_count"+group]
		if _, summed := f.samples[name+"_sum"+group]; !ok || !summed || count != inf[group] {
			t.Errorf("%s%s: count %v, +Inf %v", name, group, count, inf[group])
		}
	}
}
