package judge

import (
	"slices"
	"testing"
	"time"

	"github.com/pgregent/regent/internal/sandbox/history"
)

func TestPlantedViolationsAreCaughtAndInnocenceIsNot(t *testing.T) {
	for _, p := range PlantedEvidence() {
		t.Run(p.Name, func(t *testing.T) {
			v := Judge(p.Evidence)
			for _, k := range p.Want {
				if !v.Has(k) {
					t.Errorf("%q was acquitted; verdict:\n%s", k, v)
				}
			}
			if want := slices.Equal(p.Want, []Kind{Blind}); v.Inconclusive() != want {
				t.Errorf("inconclusive: %v, want %v", v.Inconclusive(), want)
			}
			for _, x := range v.Violations {
				if !slices.Contains(p.Want, x.Kind) {
					t.Errorf("wrongly convicted: %s", x)
				}
			}
		})
	}
	if err := SelfTest(); err != nil {
		t.Error(err)
	}
}

func TestSelfTestCoversEveryKind(t *testing.T) {
	planted := map[Kind]bool{}
	for _, p := range PlantedEvidence() {
		for _, k := range p.Want {
			planted[k] = true
		}
	}
	for _, k := range []Kind{TwoPrimaries, LostRows, ForeignRows, LongOutage, NotWhole, Blind, OutOfBounds, TwoOnATimeline, Broken} {
		if !planted[k] {
			t.Errorf("no planted evidence of %q: a judge that misses it would pass", k)
		}
	}
}

func TestVerdictMeasuresTheStory(t *testing.T) {
	v := Judge(story())
	if got, want := v.Outage.Length(), 1010*time.Millisecond; got != want {
		t.Errorf("outage %s, want %s", got, want)
	}
	if v.Outage.Before.Node != "a" || v.Outage.After.Node != "b" {
		t.Errorf("outage from %s to %s, want a to b", v.Outage.Before.Node, v.Outage.After.Node)
	}
	if v.Rate < 190 || v.Rate > 210 {
		t.Errorf("rate %.1f, want about 200", v.Rate)
	}
}

func TestObservationsTooCloseToTellAreDoubtsNotConvictions(t *testing.T) {
	e := story()
	// a's last answer comes after b's first question, but before b's answer to it: whether
	// a ended before b began, nobody can tell.
	e.WatcherSpans[0].LastSent = 2990 * time.Millisecond
	e.WatcherSpans[0].LastAnswered = 3000*time.Millisecond + 500*time.Microsecond
	v := Judge(e)
	if !v.OK() {
		t.Fatalf("convicted without proof:\n%s", v)
	}
	if len(v.Doubts) == 0 {
		t.Fatal("the doubt was not reported")
	}
	if got := v.Doubts[0].Length(); got != 500*time.Microsecond {
		t.Errorf("doubt of %s, want 500µs", got)
	}
}

func TestWatcherAndWriterTogetherProveTwoPrimaries(t *testing.T) {
	e := story()
	// The watcher saw nothing of a's write, the writer nothing of b: only both do.
	e.WriterSpans = append(e.WriterSpans, history.Span{
		Node: "a", Role: history.Primary, Conn: 3, Sightings: 2, Writes: 2,
		FirstSent: 4 * time.Second, FirstAnswered: 4100 * time.Millisecond,
		LastSent: 4200 * time.Millisecond, LastAnswered: 4300 * time.Millisecond,
	})
	if v := Judge(e); !v.Has(TwoPrimaries) {
		t.Errorf("acquitted:\n%s", v)
	}
}

func TestWindowOfAThawedPrimaryIsMeasured(t *testing.T) {
	e := story()
	thawed(&e, 40*time.Millisecond)
	v := Judge(e)
	if !v.OK() || len(v.Windows) == 0 {
		t.Fatalf("no window of 41 ms was found:\n%s", v)
	}
	if w := v.Windows[0]; w.Node != "a" || w.At != 4*time.Second || w.Length != 41*time.Millisecond {
		t.Errorf("measured: %s", w)
	}
	// What the watcher can't see of a member that stands still is not held against it.
	if v.Rate < 100 {
		t.Errorf("looked at %.0f times a second", v.Rate)
	}
	// Asked while it was frozen and answered after it, long after: it may have been at once.
	e = story()
	thawed(&e, 0)
	e.WatcherSpans[0].LastSent, e.WatcherSpans[0].LastAnswered = 3*time.Second, 4200*time.Millisecond
	if v := Judge(e); !v.OK() || len(v.Windows) == 0 || v.Windows[0].Length != 200*time.Millisecond {
		t.Errorf("an answer whose moment is unknown: %v %s", v.Windows, v)
	}
}

func TestEveryFigureHasABoundThatIsBroken(t *testing.T) {
	broken := map[Figure]bool{}
	for _, p := range PlantedEvidence() {
		if slices.Contains(p.Want, OutOfBounds) {
			for _, b := range p.Evidence.Bounds {
				broken[b.Figure] = true
			}
		}
	}
	for _, f := range Figures() {
		if !broken[f] {
			t.Errorf("no planted evidence breaks a bound of %q: a judge that takes any value would pass", f)
		}
	}
}
