package config

import (
	"math"
	"net"
	"strconv"
	"strings"
	"time"
)

// The readers of single values. Each takes what Patroni takes for the type, and says
// false for anything else; what to do then is the caller's business.

// readBool takes YAML's booleans and the words on, true, yes, 1 and their opposites in
// any case.
func readBool(t *tree) (value, ok bool) {
	if !t.isScalar() {
		return false, false
	}
	if t.kind == kindBool {
		return t.b, true
	}
	switch strings.ToLower(strings.TrimSpace(t.text)) {
	case "on", "true", "yes", "1":
		return true, true
	case "off", "false", "no", "0":
		return false, true
	}
	return false, false
}

// readText takes any scalar, as it was written.
func readText(t *tree) (string, bool) {
	if !t.isScalar() {
		return "", false
	}
	return t.text, true
}

// readNumber takes numbers, and text that holds one. Booleans are no numbers.
func readNumber(t *tree) (float64, bool) {
	if !t.isScalar() || t.kind == kindBool {
		return 0, false
	}
	s := t.num
	if t.kind == kindString {
		s = strings.TrimSpace(t.text)
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsInf(f, 0) || math.IsNaN(f) || strings.ContainsAny(s, "xX_pP") {
		return 0, false
	}
	return f, true
}

// readInt takes integers, and text that holds one. A fraction is cut off, as Python's
// int() does with numbers.
func readInt(t *tree) (int64, bool) {
	if t != nil && t.kind == kindString {
		n, err := strconv.ParseInt(strings.TrimSpace(t.text), 10, 64)
		return n, err == nil
	}
	f, ok := readNumber(t)
	if !ok || math.Abs(f) >= 1<<62 {
		return 0, false
	}
	if n, err := strconv.ParseInt(t.num, 10, 64); err == nil {
		return n, true
	}
	return int64(f), true
}

// maxSeconds keeps durations far from the end of time.Duration.
const maxSeconds = 1e9

// readSeconds takes a number of seconds, fractions allowed, or a number with one of
// PostgreSQL's units of time (us, ms, s, min, h, d; case matters).
func readSeconds(t *tree) (time.Duration, bool) {
	f, ok := readNumber(t)
	if !ok {
		var unit string
		if f, unit, ok = readUnit(t); !ok {
			return 0, false
		}
		factor, known := map[string]float64{"us": 1e-6, "ms": 1e-3, "s": 1, "min": 60, "h": 3600, "d": 86400}[unit]
		if !known {
			return 0, false
		}
		f *= factor
	}
	if math.Abs(f) > maxSeconds {
		return 0, false
	}
	return time.Duration(math.Round(f * float64(time.Second))), true
}

// readSize takes a number of bytes, or a number with one of PostgreSQL's units of
// memory (B, kB, MB, GB, TB; steps of 1024; case matters).
func readSize(t *tree) (int64, bool) {
	if n, ok := readInt(t); ok {
		return n, true
	}
	f, unit, ok := readUnit(t)
	if !ok {
		return 0, false
	}
	factor, known := map[string]float64{"B": 1, "kB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40}[unit]
	if !known || math.Abs(f*factor) >= 1<<62 {
		return 0, false
	}
	return int64(f * factor), true
}

func readUnit(t *tree) (number float64, unit string, ok bool) {
	if t == nil || t.kind != kindString {
		return 0, "", false
	}
	s := strings.TrimSpace(t.text)
	i := strings.LastIndexAny(s, "0123456789.")
	number, isNumber := readNumber(newString(s[:i+1], pos{}))
	return number, strings.TrimSpace(s[i+1:]), isNumber
}

// readStrings takes a list of scalars, or one string with commas; inline brackets and
// quotes around the parts fall away, as they do in environment variables.
func readStrings(t *tree) ([]string, bool) {
	if t.isScalar() {
		return splitList(t.text), true
	}
	return readLines(t)
}

// readLines takes a list of scalars, or one scalar as its only line.
func readLines(t *tree) ([]string, bool) {
	if t.isScalar() {
		return []string{t.text}, true
	}
	if t.isNull() || t.kind != kindList {
		return nil, false
	}
	out := make([]string, 0, len(t.list))
	for _, item := range t.list {
		s, ok := readText(item)
		if !ok {
			return nil, false
		}
		out = append(out, s)
	}
	return out, true
}

func splitList(s string) []string {
	s = strings.TrimSpace(s)
	if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		s = s[1 : len(s)-1]
	}
	var out []string
	for _, part := range strings.Split(s, ",") {
		if part = unquote(strings.TrimSpace(part)); part != "" {
			out = append(out, part)
		}
	}
	return out
}

// unquote removes one pair of quotes.
func unquote(s string) string {
	if len(s) >= 2 && (s[0] == '\'' || s[0] == '"') && s[len(s)-1] == s[0] {
		return s[1 : len(s)-1]
	}
	return s
}

// Address is a host and a port. Host is without brackets, and may be empty or * in an
// address to listen on.
type Address struct {
	Host string
	Port int
}

// String joins the two, with brackets around IPv6; "" for the zero Address.
func (a Address) String() string {
	if a == (Address{}) {
		return ""
	}
	return net.JoinHostPort(a.Host, strconv.Itoa(a.Port))
}

// readAddress splits host:port. With a defaultPort above 0 the port may be missing.
func readAddress(s string, defaultPort int) (Address, bool) {
	s = strings.TrimSpace(s)
	host, port := s, ""
	if i := strings.LastIndexByte(s, ':'); i >= 0 && !strings.HasSuffix(s, "]") {
		host, port = s[:i], s[i+1:]
	}
	if port == "" && defaultPort > 0 && !strings.HasSuffix(s, ":") {
		port = strconv.Itoa(defaultPort)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return Address{}, false
	}
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		host = host[1 : len(host)-1]
	}
	if strings.ContainsAny(host, " /[]@") {
		return Address{}, false
	}
	return Address{Host: host, Port: int(n)}, true
}
