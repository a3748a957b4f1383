package history

import (
	"slices"
	"time"
)

// Ack is one acknowledged insert.
type Ack struct {
	// Seq is the row's number. Numbers are used once, in order, whatever comes of them.
	Seq int64
	// Node is the member that acknowledged it.
	Node string
	// Sent is before the insert left the client, Acked after its answer came.
	Sent, Acked time.Duration
}

// Writes is what a writer knows at its end.
type Writes struct {
	// Acks in the order in which they came.
	Acks []Ack
	// Unknown are the numbers of inserts that were sent and not answered, sorted. Their
	// rows may be there or not; either is right.
	Unknown []int64
	// Next is the number that has not been used yet; the first one is 1.
	Next int64
}

// Gap is the time between two consecutive acknowledgements.
type Gap struct {
	// Before and After are the inserts around it. After.Seq is zero when none followed
	// within the interval, and the gap is then as long as it was watched.
	Before, After Ack
	From, To      time.Duration
}

// Length is the duration of the gap.
func (g Gap) Length() time.Duration { return g.To - g.From }

// LongestGap returns the longest time between consecutive acknowledgements that ended
// after from and began before to. The time from the last one until to counts when nothing
// was acknowledged later.
func (w Writes) LongestGap(from, to time.Duration) Gap {
	longest := Gap{From: from, To: from}
	last := Ack{Acked: from}
	consider := func(a Ack, end time.Duration) {
		if g := (Gap{Before: last, After: a, From: last.Acked, To: end}); g.Length() > longest.Length() {
			longest = g
		}
	}
	for _, a := range w.Acks {
		if a.Acked < from {
			last = a
			continue
		}
		if last.Acked > to {
			return longest
		}
		consider(a, a.Acked)
		last = a
	}
	if last.Acked < to {
		consider(Ack{}, to)
	}
	return longest
}

// Missing returns the acknowledged inserts whose rows are not among present, which must
// be sorted.
func (w Writes) Missing(present []int64) []Ack {
	var lost []Ack
	for _, a := range w.Acks {
		if _, found := slices.BinarySearch(present, a.Seq); !found {
			lost = append(lost, a)
		}
	}
	return lost
}

// Foreign returns the rows of present that the writer never sent: a table that isn't
// its own, or damage.
func (w Writes) Foreign(present []int64) []int64 {
	var foreign []int64
	for _, seq := range present {
		if seq < 1 || seq >= w.Next {
			foreign = append(foreign, seq)
		}
	}
	return foreign
}
