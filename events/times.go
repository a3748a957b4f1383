package events

import "time"

// PythonTime rewrites a time as PostgreSQL prints it (2026-11-22 22:33:19.839333+00)
// in the form that Python prints, which Patroni's interfaces show. What can't be read
// stays as it is.
func PythonTime(s string) string {
	for _, layout := range []string{"2006-01-02 15:04:05-07:00:00", "2006-01-02 15:04:05-07:00", "2006-01-02 15:04:05-07"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.Format("2006-01-02 15:04:05.000000-07:00")
		}
	}
	return s
}
