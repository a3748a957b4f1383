package api

import (
	"math"
	"strconv"
	"strings"
)

// parseBytes reads a size as PostgreSQL's settings spell it: a number, blanks, and a
// unit (B, kB, MB, GB, TB; steps of 1024; case matters), bytes without one.
func parseBytes(s string) (int64, bool) {
	s = strings.TrimSpace(s)
	end := strings.LastIndexAny(s, "0123456789.") + 1
	n, err := strconv.ParseFloat(s[:end], 64)
	if err != nil || math.IsNaN(n) || strings.ContainsAny(s[:end], "eExXpP_") {
		return 0, false
	}
	factor := map[string]float64{
		"": 1, "B": 1, "kB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40,
	}[strings.TrimSpace(s[end:])]
	if factor == 0 || math.Abs(n*factor) >= 1<<62 {
		return 0, false
	}
	return int64(math.Round(n * factor)), true
}

// parseVersion reads 9.5.2 or 15.3 into PostgreSQL's number (90502, 150003).
func parseVersion(s string) (int, bool) {
	parts := strings.Split(s, ".")
	if len(parts) < 2 || len(parts) > 3 {
		return 0, false
	}
	n := make([]int, len(parts))
	for i, p := range parts {
		v, err := strconv.ParseUint(p, 10, 8)
		if err != nil || v > 99 {
			return 0, false
		}
		n[i] = int(v)
	}
	switch {
	case len(n) == 3:
		return n[0]*10000 + n[1]*100 + n[2], true
	case n[0] >= 10:
		return n[0]*10000 + n[1], true
	default:
		return n[0]*10000 + n[1]*100, true
	}
}
