package live

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pgregent/regent/internal/sandbox"
)

// Parse reads a script. An error lists every line that is wrong, as name.txt:LINE: what.
func Parse(name, text string) (*Script, error) {
	p := parser{s: &Script{Name: name, Fencing: "keeper", Stores: sandbox.StoreKinds()}, seen: map[string]int{}}
	for i, line := range strings.Split(text, "\n") {
		p.line = i + 1
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		p.take(line)
	}
	p.finish()
	return p.s, errors.Join(p.errs...)
}

type parser struct {
	s    *Script
	line int
	seen map[string]int // header lines
	errs []error
}

func (p *parser) wrong(format string, args ...any) {
	p.errs = append(p.errs, fmt.Errorf("%s.txt:%d: %s", p.s.Name, p.line, fmt.Sprintf(format, args...)))
}

func (p *parser) take(line string) {
	word, rest, _ := strings.Cut(line, " ")
	if set := p.header(word); set != nil {
		switch {
		case len(p.s.Steps) > 0:
			p.wrong("%q belongs above the first step", word)
		case p.seen[word] > 0:
			p.wrong("%q was said in line %d", word, p.seen[word])
		case strings.TrimSpace(rest) == "":
			p.wrong("%q says nothing", word)
		default:
			set(strings.TrimSpace(rest))
		}
		p.seen[word] = p.line
		return
	}
	p.step(line)
}

// header returns what a line of the header sets; nil: it is a step.
func (p *parser) header(word string) func(string) {
	text := func(to *string) func(string) { return func(v string) { *to = v } }
	switch word {
	case "row":
		return text(&p.s.Row)
	case "where":
		return text(&p.s.English.Where)
	case "scenario":
		return text(&p.s.English.Scenario)
	case "action":
		return text(&p.s.English.Action)
	case "故障位置":
		return text(&p.s.Chinese.Where)
	case "场景":
		return text(&p.s.Chinese.Scenario)
	case "动作":
		return text(&p.s.Chinese.Action)
	case "asserts":
		return text(&p.s.Asserts)
	case "fencing":
		return func(v string) {
			if p.s.Fencing = v; v != "keeper" && v != "off" {
				p.wrong("fencing is keeper or off, not %q", v)
			}
		}
	case "settings":
		return p.settings
	case "stores":
		return func(v string) { p.s.Stores = p.stores(strings.Fields(v)) }
	}
	return nil
}

func (p *parser) settings(v string) {
	p.s.Settings = strings.Fields(v)
	for _, s := range p.s.Settings {
		if name, value, ok := strings.Cut(s, "="); !ok || name == "" || value == "" {
			p.wrong("%q isn't NAME=VALUE", s)
		}
	}
	slices.Sort(p.s.Settings)
}

func (p *parser) stores(words []string) []sandbox.StoreKind {
	var out []sandbox.StoreKind
	for _, w := range words {
		kind := sandbox.StoreKind(w)
		switch {
		case !slices.Contains(sandbox.StoreKinds(), kind):
			p.wrong("%q is no store; there are %v", w, sandbox.StoreKinds())
		case slices.Contains(out, kind):
			p.wrong("%s is named twice", w)
		default:
			out = append(out, kind)
		}
	}
	return out
}

// step reads: [on STORE[,STORE]] KIND words… [for SPAN] [within SPAN].
func (p *parser) step(line string) {
	words, err := split(line)
	if err != nil {
		p.wrong("%s", err)
		return
	}
	s := Step{Line: p.line, Text: line}
	if words[0] == "on" && len(words) > 1 {
		s.On, words = p.stores(strings.Split(words[1], ",")), words[2:]
	}
	for _, k := range Kinds() {
		if first := strings.Fields(string(k)); len(words) > len(first) && slices.Equal(words[:len(first)], first) {
			s.Kind, words = k, words[len(first):]
			break
		}
	}
	if s.Kind == "" {
		p.wrong("%q begins with none of: do, wait for, expect, allow, or a word of the header", line)
		return
	}
	for _, end := range []struct {
		word string
		to   *Span
	}{{"within", &s.Within}, {"for", &s.For}} {
		if n := len(words); n > 2 && words[n-2] == end.word {
			if *end.to, err = parseSpan(words[n-1]); err != nil {
				p.wrong("%s", err)
			}
			words = words[:n-2]
		}
	}
	if s.verb, s.args, err = match(s.Kind, words); err != nil {
		p.wrong("%s", err)
		return
	}
	p.limits(s)
	p.s.Steps = append(p.s.Steps, s)
}

// limits refuses a deadline where there is none to keep, and its lack where one is needed.
func (p *parser) limits(s Step) {
	none := Span{}
	figure := s.verb.bound != nil
	switch {
	case s.Kind == WaitFor && s.Within == none:
		p.wrong("a wait needs its deadline: within 10s")
	case s.For != none && (s.Kind != Expect || figure):
		p.wrong("\"for\" says how long a condition is expected to hold; there is none here")
	case s.Within != none && (s.Kind == Expect || s.Kind == Allow):
		p.wrong("what is expected holds now, or for a time; use \"wait for\" for what may take until a deadline")
	}
}

// finish checks the whole.
func (p *parser) finish() {
	p.line++
	for _, must := range []string{"row", "where", "scenario", "action", "asserts"} {
		if p.seen[must] == 0 {
			p.wrong("the header lacks %q", must)
		}
	}
	if p.s.Chinese != (Text{}) && (p.s.Chinese.Where == "" || p.s.Chinese.Scenario == "" || p.s.Chinese.Action == "") {
		p.wrong("the document's row has three cells: 故障位置, 场景, 动作")
	}
	has := func(kinds ...Kind) bool {
		return slices.ContainsFunc(p.s.Steps, func(s Step) bool { return slices.Contains(kinds, s.Kind) })
	}
	if !has(Do) {
		p.wrong("nothing is done")
	}
	if !has(Expect) {
		p.wrong("nothing is expected: such a row can't fail")
	}
}

// split cuts a line at spaces; what is between double quotes is one word.
func split(line string) ([]string, error) {
	var words []string
	for i, part := range strings.Split(line, `"`) {
		if i%2 == 1 {
			words = append(words, part)
			continue
		}
		words = append(words, strings.Fields(part)...)
	}
	if strings.Count(line, `"`)%2 == 1 {
		return nil, errors.New("a quotation mark isn't closed")
	}
	return words, nil
}
