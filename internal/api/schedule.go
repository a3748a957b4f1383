package api

import (
	"net/http"
	"strings"
	"time"
)

// readSchedule refuses a time that can't be read, has no zone, or is past.
func (s *Server) readSchedule(text, action string) (time.Time, *reply) {
	at, zoned, ok := parseTime(text)
	switch {
	case !ok:
		return at, inText(http.StatusUnprocessableEntity,
			"Unable to parse scheduled timestamp. It should be in an unambiguous format, e.g. ISO 8601")
	case !zoned:
		return at, inText(http.StatusBadRequest, "Timezone information is mandatory for the scheduled "+action)
	case at.Before(s.wall()):
		return at, inText(http.StatusUnprocessableEntity, "Cannot schedule "+action+" in the past")
	default:
		return at, nil
	}
}

// isoTime is a time as Python writes it, in the zone that it was given in.
func isoTime(at time.Time) string { return at.Format("2006-01-02T15:04:05.999999-07:00") }

// parseTime reads a point in time in ISO 8601 and the spellings close to it; zoned
// tells whether it says in which zone.
func parseTime(text string) (at time.Time, zoned, ok bool) {
	text = strings.TrimSpace(text)
	if i := strings.IndexAny(text, "Tt"); i == len("2006-01-02") {
		text = text[:i] + " " + text[i+1:]
	}
	for _, zone := range []string{" UTC", " GMT", " Z", "z"} {
		if rest, found := strings.CutSuffix(text, zone); found {
			text = rest + "Z"
		}
	}
	for _, clock := range []string{"2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02 15", "2006-01-02"} {
		for _, zone := range []string{"Z07:00", "Z0700", "-07", " -07:00", " -0700", " -07"} {
			if t, err := time.Parse(clock+zone, text); err == nil {
				return t, true, true
			}
		}
		if t, err := time.Parse(clock, text); err == nil {
			return t, false, true
		}
	}
	return time.Time{}, false, false
}
