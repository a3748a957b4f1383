package judge

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/pgregent/regent/internal/sandbox/history"
)

const (
	// NotLinear: what primaries answered about a list fits no order of the questions in time.
	NotLinear Kind = "not linearizable"
	// StrangeRead: an answer shows what nobody ever appended, something twice, or, at a replica,
	// what isn't a former state of the list.
	StrangeRead Kind = "strange read"
)

// orderTimeout is how long the order of one list's questions is looked for.
const orderTimeout = 20 * time.Second

// judgeLists looks for an order of all questions about each list that explains all answers
// (linearizability; Herlihy and Wing 1990), in a mode that loses nothing acknowledged.
//
// An append whose outcome is unknown is taken out of every answer. PostgreSQL lets others see a
// transaction whose wait for a standby was cut short, and a failover may undo it; its client
// was never told that it happened. Replicas may answer with the past, each connection never
// going back in it. A primary that was frozen past its lease may answer from the past for MaxThaw.
func (v *Verdict) judgeLists(e Evidence) {
	byKey := map[int64][]history.ListOp{}
	for _, op := range e.Lists {
		byKey[op.Key] = append(byKey[op.Key], op)
	}
	v.Lists, v.Questions = len(byKey), len(e.Lists)
	for _, key := range slices.Sorted(maps.Keys(byKey)) {
		l := list{key: key, freezes: e.Freezes}
		for _, x := range l.judge(byKey[key]) {
			v.violate(x.Kind, "%s (%s)", x.Text, e.Fault)
		}
	}
}

// list is the history of one list.
type list struct {
	key     int64
	freezes []history.Freeze
	// attempted are all values that somebody tried to append; true: acknowledged.
	attempted map[int64]bool
}

func (l *list) judge(ops []history.ListOp) (found []Violation) {
	l.attempted = map[int64]bool{}
	for _, op := range ops {
		if op.Append != 0 {
			l.attempted[op.Append] = !op.Unknown
		}
	}
	var primaries, replicas []history.ListOp
	longest := []int64{}
	for _, op := range ops {
		if op.Unknown {
			continue
		}
		if strange := l.strange(op); strange != "" {
			return []Violation{{StrangeRead, strange}}
		}
		op.Values = l.acknowledged(op.Values)
		switch {
		case op.Replica:
			replicas = append(replicas, op)
		case op.Append == 0 && l.thawing(op):
		default:
			primaries = append(primaries, op)
			if len(op.Values) > len(longest) {
				longest = op.Values
			}
		}
	}
	if text := l.backwards(replicas, longest); text != "" {
		found = append(found, Violation{StrangeRead, text})
	}
	if text := l.disorder(primaries); text != "" {
		found = append(found, Violation{NotLinear, text})
	}
	return found
}

// strange says what is impossible about an answer, whatever else was asked.
func (l *list) strange(op history.ListOp) string {
	seen := map[int64]bool{}
	for _, value := range op.Values {
		if _, ok := l.attempted[value]; !ok {
			return fmt.Sprintf("list %d at %s has %d at %s, which nobody appended", l.key, op.Node, value, ms(op.Answered))
		}
		if seen[value] {
			return fmt.Sprintf("list %d at %s has %d twice at %s", l.key, op.Node, value, ms(op.Answered))
		}
		seen[value] = true
	}
	return ""
}

func (l *list) acknowledged(values []int64) []int64 {
	return slices.DeleteFunc(slices.Clone(values), func(value int64) bool { return !l.attempted[value] })
}

// thawing: the answer of a member in or right after a freeze.
func (l *list) thawing(op history.ListOp) bool {
	return slices.ContainsFunc(l.freezes, func(f history.Freeze) bool {
		return f.Node == op.Node && op.Answered >= f.From && op.Sent <= f.To+MaxThaw
	})
}

// backwards says which replica's answer is no former state of the list, or an older one than
// the same connection showed before.
func (l *list) backwards(replicas []history.ListOp, longest []int64) string {
	seen := map[int]int{}
	for _, op := range replicas {
		n := len(op.Values)
		if n > len(longest) || !slices.Equal(op.Values, longest[:n]) {
			return fmt.Sprintf("list %d at the replica %s was %v at %s, and never so at a primary, where it became %v",
				l.key, op.Node, op.Values, ms(op.Answered), longest)
		}
		if n < seen[op.Conn] {
			return fmt.Sprintf("list %d at the replica %s had %d values at %s, fewer than before over the same connection",
				l.key, op.Node, n, ms(op.Answered))
		}
		seen[op.Conn] = n
	}
	return ""
}

// disorder says that no order explains the answers.
func (l *list) disorder(primaries []history.ListOp) string {
	clients := map[int]int{} // porcupine wants them to count from 0
	var ops []porcupine.Operation
	for _, op := range primaries {
		if _, ok := clients[op.Client]; !ok {
			clients[op.Client] = len(clients)
		}
		ops = append(ops, porcupine.Operation{
			ClientId: clients[op.Client], Input: op.Append, Output: op.Values, Call: int64(op.Sent), Return: int64(op.Answered),
		})
	}
	switch porcupine.CheckOperationsTimeout(listModel(), ops, orderTimeout) {
	case porcupine.Ok:
		return ""
	case porcupine.Unknown:
		return fmt.Sprintf("list %d: no order of its %d questions was found in %s", l.key, len(ops), orderTimeout)
	default:
		return fmt.Sprintf("list %d: no order explains its %d answers; the last is %v", l.key, len(ops), primaries[len(primaries)-1].Values)
	}
}

// listModel is a list. Its state is what is in it; input is the value appended, 0 for a read.
func listModel() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return []int64(nil) },
		Step: func(before, input, output any) (bool, any) {
			state, _ := before.([]int64)
			value, _ := input.(int64)
			shown, _ := output.([]int64)
			if value != 0 {
				state = append(slices.Clip(state), value)
			}
			return slices.Equal(state, shown), state
		},
		Equal: func(a, b any) bool {
			x, _ := a.([]int64)
			y, _ := b.([]int64)
			return slices.Equal(x, y)
		},
	}
}
