package journal

import (
	"math"
	"testing"
)

// A segment's clock may be wrong: a search by time goes by closeness, not by order, and the
// newest segment is found whatever the clock shows.
func TestFindBearsClocksThatWereSetBackAndForth(t *testing.T) {
	dir := t.TempDir()
	for _, wall := range []int64{1000, 2000, 10, 20, 3000, 2500} {
		j, _ := start(t, dir, Options{})
		r := fact(1)
		r.Wall = wall
		mustAppend(t, j.Journal, r)
		if err := j.stop(); err != nil {
			t.Fatal(err)
		}
	}
	for wall, want := range map[int64]uint64{
		1500: 1, 2200: 2, 15: 3, 500: 4, 2800: 6, 3500: 5, math.MaxInt64: 5,
		5: 1, // before all: the oldest
	} {
		places, err := Find(dir, wall, 8)
		if err != nil || len(places) == 0 || places[0].Segment != want {
			t.Errorf("at %d: %+v, %v, want segment %d first", wall, places, err, want)
			continue
		}
		for i, p := range places {
			if p.Segment != want-uint64(i) {
				t.Errorf("at %d: %+v aren't the segments before it", wall, places)
			}
		}
	}
	places, err := Newest(dir, 1)
	if err != nil || len(places) != 2 || places[0].Segment != 6 || places[0].Wall != 2500 || places[1].Segment != 5 {
		t.Errorf("the newest: %+v, %v", places, err)
	}
	if places, err := Newest(t.TempDir(), 1); err != nil || len(places) != 0 {
		t.Errorf("of an empty journal: %+v, %v", places, err)
	}
}
