package judge

import (
	"time"

	"github.com/pgregent/regent/internal/sandbox/history"
)

// plantedLists are answers about a list around the fail-over of story, innocent ones and others.
func plantedLists(plant func(name string, change func(e *Evidence), want ...Kind) Planted) []Planted {
	with := func(name string, change func(l *lists), want ...Kind) Planted {
		return plant(name, func(e *Evidence) {
			l := listsStory()
			change(&l)
			e.Lists = l.ops
		}, want...)
	}
	return []Planted{
		with("lists, and nothing wrong with them", func(*lists) {}),
		with("an append that nobody was told of is seen and gone again", func(l *lists) {
			l.add(0, 99, true).Answered = 1900 * milli
			l.read(4, "a", false, 1950, 1, 2, 3, 99)
		}),
		with("a replica that answers from the past", func(l *lists) { l.read(7, "c", true, 5500, 1, 2) }),
		with("a lost append", func(l *lists) { l.read(4, "b", false, 5500, 1, 2, 4, 5) }, NotLinear),
		with("a new primary that lacks what the old one acknowledged", func(l *lists) {
			l.read(4, "b", false, 3200, 1, 2)
		}, NotLinear),
		with("a second primary that answers from the past", func(l *lists) { l.read(5, "a", false, 4500, 1, 2, 3) }, NotLinear),
		with("the same a moment after the other one's first answer", func(l *lists) {
			l.read(5, "a", false, 4530, 1, 2, 3)
		}, NotLinear),
		plant("the same when it was frozen until then", func(e *Evidence) {
			thawed(e, 40*time.Millisecond)
			e.Freezes[0].To = 4500 * milli
			e.WatcherSpans[0].LastSent, e.WatcherSpans[0].LastAnswered = 4540*milli, 4541*milli
			e.WatcherSpans[1].FirstSent, e.WatcherSpans[1].FirstAnswered = 4542*milli, 4543*milli
			l := listsStory()
			l.read(5, "a", false, 4530, 1, 2, 3)
			e.Lists = l.ops
		}),
		with("a value from nowhere", func(l *lists) { l.read(4, "b", false, 5500, 1, 2, 3, 4, 5, 77) }, StrangeRead),
		with("a value twice", func(l *lists) { l.read(4, "b", false, 5500, 1, 2, 3, 4, 5, 5) }, StrangeRead),
		with("a replica with another history", func(l *lists) { l.read(7, "c", true, 5500, 1, 3) }, StrangeRead),
		with("a replica that goes back", func(l *lists) {
			l.read(7, "c", true, 5400, 1, 2, 3)
			l.read(7, "c", true, 5500, 1, 2)
		}, StrangeRead),
	}
}

const milli = time.Millisecond

// lists is a history that is being told.
type lists struct{ ops []history.ListOp }

// add tells of an append by a client of its own, acknowledged a millisecond later.
func (l *lists) add(at int, value int64, unknown bool, values ...int64) *history.ListOp {
	l.ops = append(l.ops, history.ListOp{
		Client: int(value), Key: 1, Append: value, Unknown: unknown, Values: values, Node: "a",
		Sent: time.Duration(at) * milli, Answered: time.Duration(at+1) * milli,
	})
	return &l.ops[len(l.ops)-1]
}

func (l *lists) read(client int, node string, replica bool, at int, values ...int64) {
	l.ops = append(l.ops, history.ListOp{
		Client: 100 + client, Key: 1, Values: values, Node: node, Conn: client, Replica: replica,
		Sent: time.Duration(at) * milli, Answered: time.Duration(at+1) * milli,
	})
}

// listsStory appends 1 to 3 before the fail-over and 4 and 5 after it.
func listsStory() lists {
	var l lists
	l.add(1100, 1, false, 1)
	l.add(1200, 2, false, 1, 2)
	l.add(1300, 3, false, 1, 2, 3)
	l.read(4, "a", false, 1400, 1, 2, 3)
	l.add(3100, 4, false, 1, 2, 3, 4)
	l.add(4000, 5, false, 1, 2, 3, 4, 5)
	l.read(6, "c", true, 4100, 1, 2, 3, 4)
	l.read(4, "b", false, 5000, 1, 2, 3, 4, 5)
	return l
}
