package history

import (
	"slices"
	"testing"
	"time"
)

const ms = time.Millisecond

func acks(times ...time.Duration) Writes {
	w := Writes{Next: int64(len(times)) + 1}
	for i, at := range times {
		w.Acks = append(w.Acks, Ack{Seq: int64(i) + 1, Sent: at - ms, Acked: at})
	}
	return w
}

func TestLongestGapIsTheOneThatTouchesTheInterval(t *testing.T) {
	w := acks(10*ms, 20*ms, 500*ms, 510*ms, 900*ms, 910*ms)
	for _, c := range []struct {
		name             string
		from, to         time.Duration
		want             time.Duration
		wantFrom, wantTo time.Duration
	}{
		{"everything", 0, 1000 * ms, 480 * ms, 20 * ms, 500 * ms},
		{"a gap that began before the interval counts whole", 100 * ms, 505 * ms, 480 * ms, 20 * ms, 500 * ms},
		{"only the later gap", 505 * ms, 1000 * ms, 390 * ms, 510 * ms, 900 * ms},
		{"a gap that ends after the interval counts whole", 505 * ms, 600 * ms, 390 * ms, 510 * ms, 900 * ms},
		{"silence until the end counts", 905 * ms, 5000 * ms, 4090 * ms, 910 * ms, 5000 * ms},
		{"after all", 2000 * ms, 3000 * ms, 2090 * ms, 910 * ms, 3000 * ms},
	} {
		g := w.LongestGap(c.from, c.to)
		if g.Length() != c.want || g.From != c.wantFrom || g.To != c.wantTo {
			t.Errorf("%s: %s from %s to %s, want %s from %s to %s", c.name, g.Length(), g.From, g.To, c.want, c.wantFrom, c.wantTo)
		}
	}
	if g := acks().LongestGap(0, time.Second); g.Length() != time.Second {
		t.Errorf("without any acknowledgement the gap is %s, want the whole interval", g.Length())
	}
}

func TestMissingAndForeignRows(t *testing.T) {
	w := acks(1*ms, 2*ms, 3*ms, 4*ms)
	w.Acks = slices.Delete(w.Acks, 1, 2) // 2 was sent and never answered
	w.Unknown = []int64{2}
	if lost := w.Missing([]int64{1, 2, 4}); len(lost) != 1 || lost[0].Seq != 3 {
		t.Errorf("missing %v, want row 3 alone", lost)
	}
	if lost := w.Missing([]int64{1, 3, 4}); len(lost) != 0 {
		t.Errorf("missing %v, want none: the unknown row 2 may be absent", lost)
	}
	if foreign := w.Foreign([]int64{0, 1, 2, 3, 4, 5}); !slices.Equal(foreign, []int64{0, 5}) {
		t.Errorf("foreign %v, want 0 and 5", foreign)
	}
}

func see(t *Track, node string, role Role, conn int, sent, answered time.Duration) {
	t.See(Sighting{Node: node, Role: role, Conn: conn, Sent: sent, Answered: answered})
}

func TestTrackBeginsASpanAtEveryOtherRoleAndConnection(t *testing.T) {
	var track Track
	see(&track, "a", Down, 0, 0, 1*ms)
	see(&track, "a", Down, 0, 5*ms, 6*ms)
	see(&track, "a", Replica, 1, 10*ms, 11*ms)
	see(&track, "b", Primary, 1, 12*ms, 13*ms)
	see(&track, "a", Primary, 1, 20*ms, 21*ms)
	track.See(Sighting{Node: "a", Role: Primary, Conn: 1, Sent: 40 * ms, Answered: 41 * ms, Wrote: true})
	see(&track, "a", Primary, 2, 50*ms, 51*ms)
	see(&track, "a", Down, 0, 60*ms, 61*ms)
	var got []string
	for _, s := range track.Spans() {
		got = append(got, s.String())
	}
	want := []string{
		"a down from 1ms to 5ms (2 sightings, 0 writes)",
		"a replica from 11ms to 10ms (1 sightings, 0 writes)",
		"b primary from 13ms to 12ms (1 sightings, 0 writes)",
		"a primary from 21ms to 40ms (2 sightings, 1 writes)",
		"a primary from 51ms to 50ms (1 sightings, 0 writes)",
		"a down from 61ms to 60ms (1 sightings, 0 writes)",
	}
	if !slices.Equal(got, want) {
		t.Errorf("spans:\n%q\nwant:\n%q", got, want)
	}
	if gap := track.Spans()[3].MaxGap; gap != 20*ms {
		t.Errorf("longest gap %s, want 20ms", gap)
	}
}

func span(node string, firstSent, firstAnswered, lastSent, lastAnswered time.Duration) Span {
	return Span{
		Node: node, Role: Primary, FirstSent: firstSent, FirstAnswered: firstAnswered,
		LastSent: lastSent, LastAnswered: lastAnswered,
	}
}

func TestOverlapsAreProvenOnlyWhenNoMomentExplainsThemAway(t *testing.T) {
	a := span("a", 0, 10*ms, 100*ms, 110*ms)
	for _, c := range []struct {
		name   string
		b      Span
		touch  bool
		proven bool
		length time.Duration
	}{
		{"long after", span("b", 200*ms, 201*ms, 300*ms, 301*ms), false, false, 0},
		{"right after the last answer", span("b", 110*ms, 120*ms, 300*ms, 301*ms), false, false, 0},
		{"asked before a's last answer, answered after it", span("b", 105*ms, 120*ms, 300*ms, 301*ms), true, false, 5 * ms},
		{"answered before a's last question", span("b", 80*ms, 90*ms, 300*ms, 301*ms), true, true, 10 * ms},
		{"a single look inside", span("b", 50*ms, 52*ms, 50*ms, 52*ms), true, true, 2 * ms},
		{"a single look across a's end", span("b", 95*ms, 105*ms, 95*ms, 105*ms), true, false, 10 * ms},
		{"the same member", span("a", 50*ms, 52*ms, 60*ms, 62*ms), false, false, 0},
	} {
		for _, spans := range [][]Span{{a, c.b}, {c.b, a}} {
			got := Overlaps(spans)
			if (len(got) == 1) != c.touch {
				t.Errorf("%s: overlaps %v, want touching: %v", c.name, got, c.touch)
				continue
			}
			if c.touch && (got[0].Proven != c.proven || got[0].Length() != c.length) {
				t.Errorf("%s: %s (proven %v), want proven %v of %s", c.name, got[0], got[0].Proven, c.proven, c.length)
			}
		}
	}
	replica := span("b", 50*ms, 52*ms, 60*ms, 62*ms)
	replica.Role = Replica
	if got := Overlaps([]Span{a, replica}); len(got) != 0 {
		t.Errorf("a replica overlaps: %v", got)
	}
}

func TestRateCountsSharesAndFindsBlindTimes(t *testing.T) {
	spans := []Span{
		{Node: "a", FirstSent: 0, LastSent: 1000 * ms, Sightings: 200, MaxGap: 7 * ms},
		{Node: "a", FirstSent: 1300 * ms, LastSent: 2000 * ms, Sightings: 140, MaxGap: 6 * ms},
		{Node: "b", FirstSent: 0, LastSent: 2000 * ms, Sightings: 9999},
	}
	rate, blind := Rate(spans, "a", 500*ms, 2000*ms)
	if want := (100.0 + 140) / 1.5; rate < want-1 || rate > want+1 {
		t.Errorf("rate %.1f, want %.1f", rate, want)
	}
	if blind != 300*ms {
		t.Errorf("blind for %s, want 300ms", blind)
	}
	if rate, blind := Rate(spans, "c", 0, time.Second); rate != 0 || blind != time.Second {
		t.Errorf("a member that was never looked at: rate %.1f, blind %s", rate, blind)
	}
}

func TestCutTakesAFreezeOutOfAPrimarysTime(t *testing.T) {
	f := Freeze{Node: "a", From: 100 * ms, To: 200 * ms}
	for _, c := range []struct {
		name string
		s    Span
		want []Span
	}{
		{"before it", span("a", 0, 10*ms, 80*ms, 90*ms), []Span{span("a", 0, 10*ms, 80*ms, 90*ms)}},
		{"after it", span("a", 210*ms, 220*ms, 300*ms, 310*ms), []Span{span("a", 210*ms, 220*ms, 300*ms, 310*ms)}},
		{"another member", span("b", 0, 10*ms, 300*ms, 310*ms), []Span{span("b", 0, 10*ms, 300*ms, 310*ms)}},
		{"across it", span("a", 0, 10*ms, 300*ms, 310*ms),
			[]Span{span("a", 0, 10*ms, 100*ms, 100*ms), span("a", 200*ms, 200*ms, 300*ms, 310*ms)}},
		{"asked in it, answered after it", span("a", 0, 10*ms, 150*ms, 205*ms),
			[]Span{span("a", 0, 10*ms, 100*ms, 100*ms), span("a", 200*ms, 205*ms, 200*ms, 205*ms)}},
		{"asked before it, answered after it", span("a", 0, 10*ms, 99*ms, 205*ms), []Span{span("a", 0, 10*ms, 99*ms, 100*ms)}},
		{"begun in it", span("a", 150*ms, 205*ms, 300*ms, 310*ms), []Span{span("a", 200*ms, 205*ms, 300*ms, 310*ms)}},
		{"one look, begun in it", span("a", 150*ms, 205*ms, 150*ms, 205*ms), []Span{span("a", 200*ms, 205*ms, 200*ms, 205*ms)}},
	} {
		if got := f.Cut([]Span{c.s}); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
