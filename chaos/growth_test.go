package chaos

import "testing"

func TestGrowthIsJudgedByQuartersAndPeaks(t *testing.T) {
	flat := func(n int, f func(i int) float64) []float64 {
		out := make([]float64, n)
		for i := range out {
			out[i] = f(i)
		}
		return out
	}
	for _, c := range []struct {
		name            string
		values          []float64
		grown, exceeded bool
	}{
		{"steady", flat(40, func(int) float64 { return 25 }), false, false},
		{"a saw", flat(40, func(i int) float64 { return 20 + float64(i%5) }), false, false},
		{"a leak", flat(40, func(i int) float64 { return 20 + float64(i) }), true, false},
		{"one peak", flat(40, func(i int) float64 { return map[bool]float64{true: 100, false: 25}[i == 20] }), false, true},
		{"a leak that is too short to tell from a start", flat(6, func(i int) float64 { return 20 + 5*float64(i) }), false, false},
	} {
		g := growth{series: map[string][]float64{"agent, RSS": c.values}}
		got := g.usages()
		if len(got) != len(budgets()) || got[0].Grown != c.grown || got[0].Exceeded != c.exceeded || got[0].OK() == (c.grown || c.exceeded) {
			t.Errorf("%s: %+v, want grown %v, exceeded %v", c.name, got, c.grown, c.exceeded)
		}
		if got[1].OK() {
			t.Errorf("%s: a budget that was never measured was kept: %+v", c.name, got[1])
		}
	}
}
