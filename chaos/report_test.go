package chaos

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestReportComparesWithTheFloorOfTheSameRun(t *testing.T) {
	line := func(name string, goal Line, values ...float64) Line {
		goal.Name, goal.Unit, goal.Load = name, "ms", 1.5
		for _, v := range values {
			goal.add(v)
		}
		return goal
	}
	lines := []Line{
		line(floorSwitchover, Line{Goal: "(the floor)"}, 90, 100, 110),
		line("quick", Line{Goal: "≤ 300 ms", Limit: 300, FloorLine: floorSwitchover}, 150, 190, 280),
		line("slow", Line{Goal: "≤ 300 ms", Limit: 300, FloorLine: floorSwitchover}, 250, 260, 270),
		line("too slow", Line{Goal: "≤ 300 ms", Limit: 300, FloorLine: floorSwitchover}, 400),
		line("without a floor", Line{Goal: "≤ 1 s", Limit: 1000, FloorLine: floorCrash}, 500),
		line("broken", Line{Goal: "0 rows lost", Broken: []string{"lost rows: 7"}}, 10),
	}
	compare(lines)
	var out bytes.Buffer
	Report{TTL: 2 * time.Second, Lines: lines}.Markdown(&out)
	for _, want := range []string{
		"| floor: switchover of bare PostgreSQL | (the floor) | 100 ms | 110 ms |  |  |  |  |  | 3 | 0 | 1.5 |",
		"| quick | ≤ 300 ms | 190 ms | 280 ms | met | 100 ms | 1.9 | ≤ 2× floor | met | 3 | 0 | 1.5 |",
		"| slow | ≤ 300 ms | 260 ms | 270 ms | met | 100 ms | 2.6 | ≤ 2× floor | **missed** | 3 | 0 | 1.5 |",
		"| too slow | ≤ 300 ms | 400 ms | 400 ms | **missed** | 100 ms | 4.0 | ≤ 2× floor | **missed** | 1 | 0 | 1.5 |",
		"| without a floor | ≤ 1 s | 500 ms | 500 ms | met |  |  |  |  | 1 | 0 | 1.5 |",
		"| broken | 0 rows lost | 10 ms | 10 ms | **promise broken** |",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the report lacks %q", want)
		}
	}
	if t.Failed() {
		t.Log(out.String())
	}
}
