package metrics

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// ContentType of a Page. It is what Patroni answers, and Prometheus takes it for its text
// format.
const ContentType = "text/plain"

// Kind of a metric, in Prometheus's words.
type Kind string

// The kinds that are used here.
const (
	Gauge     Kind = "gauge"
	Counter   Kind = "counter"
	histogram Kind = "histogram"
)

// Label of a sample.
type Label struct{ Name, Value string }

// Page is one answer to GET /metrics. Families appear in the order in which they are added.
type Page struct {
	labels string // of every sample, without braces
	out    strings.Builder
}

// NewPage returns an empty page whose samples all carry the labels.
func NewPage(labels ...Label) *Page { return &Page{labels: join(labels)} }

// Bytes is the page so far.
func (p *Page) Bytes() []byte { return []byte(p.out.String()) }

// Add writes a family of one sample. The value is text, because Patroni has numbers that
// no formatting of a float gives (030004), and positions would lose digits as floats.
// Notes become comment lines between help and type.
func (p *Page) Add(kind Kind, name, help, value string, notes ...string) {
	p.Family(kind, name, help, notes...)
	p.Sample(name, value)
}

// Family writes the head of a family; its samples follow at once.
func (p *Page) Family(kind Kind, name, help string, notes ...string) {
	p.out.WriteString("# HELP " + name + " " + escapeHelp.Replace(help) + "\n")
	for _, n := range notes {
		p.out.WriteString("# " + n + "\n")
	}
	p.out.WriteString("# TYPE " + name + " " + string(kind) + "\n")
}

// Sample writes one value. A blank at the end of the name stays, as one version of Patroni
// had it.
func (p *Page) Sample(name, value string, labels ...Label) {
	all := p.labels
	if own := join(labels); own != "" {
		all += "," + own
	}
	p.out.WriteString(name + "{" + all + "} " + value + "\n")
}

var (
	escapeHelp  = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
	escapeLabel = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
)

func join(labels []Label) string {
	parts := make([]string, len(labels))
	for i, l := range labels {
		parts[i] = l.Name + `="` + escapeLabel.Replace(strings.ToValidUTF8(l.Value, "?")) + `"`
	}
	return strings.Join(parts, ",")
}

// Flag is 1 for true, else 0.
func Flag(b bool) string {
	if b {
		return "1"
	}
	return "0"
}

// Seconds prints a duration.
func Seconds(d time.Duration) string { return Float(d.Seconds()) }

// Float prints a number without losing digits, and never in exponent form, which people
// read badly.
func Float(f float64) string {
	switch {
	case math.IsInf(f, 1):
		return "+Inf"
	case math.IsInf(f, -1):
		return "-Inf"
	}
	return strconv.FormatFloat(f, 'f', -1, 64)
}

// Whole prints an unsigned number.
func Whole[N ~uint32 | ~uint64](n N) string { return strconv.FormatUint(uint64(n), 10) }
