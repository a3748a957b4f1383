package config

import (
	"math"
	"math/big"
	"regexp"
	"strconv"
	"strings"
)

// The plain scalars of YAML 1.1 as PyYAML's safe loader reads them, which is how every
// patroni.yml in the world was read when its author tested it. PyYAML is stricter than
// the YAML 1.1 text in places (`y` and `n` are strings, an exponent needs a dot and a
// sign) and those places are kept.
var (
	reInt = regexp.MustCompile(`^(?:[-+]?0b[0-1_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)` +
		`|[-+]?0x[0-9a-fA-F_]+|[-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+)$`)
	reFloat = regexp.MustCompile(`^(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?` +
		`|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?` +
		`|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*` +
		`|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$`)
)

// resolvePlain gives an unquoted scalar its type. Dates stay strings: the only settings
// that take one hand its text to PostgreSQL.
func resolvePlain(text string, at pos) *tree {
	switch text {
	case "", "~", "null", "Null", "NULL":
		return &tree{kind: kindNull, text: text, pos: at}
	}
	if b, ok := plainBool(text); ok {
		return &tree{kind: kindBool, b: b, text: text, pos: at}
	}
	if reInt.MatchString(text) {
		if num, ok := plainInt(text); ok {
			return &tree{kind: kindInt, num: num, text: text, pos: at}
		}
	}
	if reFloat.MatchString(text) {
		if num, ok := plainFloat(text); ok {
			return &tree{kind: kindFloat, num: num, text: text, pos: at}
		}
	}
	return newString(text, at)
}

func plainBool(text string) (value, ok bool) {
	switch text {
	case "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON":
		return true, true
	case "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF":
		return false, true
	}
	return false, false
}

// plainInt converts what reInt matched to decimal. False for digits that are all
// underscores (0x_), which PyYAML fails on too.
func plainInt(text string) (string, bool) {
	digits := strings.ReplaceAll(text, "_", "")
	sign := ""
	if strings.HasPrefix(digits, "-") {
		sign = "-"
	}
	digits = strings.TrimLeft(digits, "+-")
	base := 10
	switch {
	case digits == "0":
		return "0", true
	case strings.HasPrefix(digits, "0b"):
		base, digits = 2, digits[2:]
	case strings.HasPrefix(digits, "0x"):
		base, digits = 16, digits[2:]
	case strings.HasPrefix(digits, "0"):
		base, digits = 8, digits[1:]
	case strings.Contains(digits, ":"):
		n, ok := sexagesimal(digits)
		return signed(sign, n), ok
	}
	n, ok := new(big.Int).SetString(digits, base)
	return signed(sign, n), ok
}

func signed(sign string, n *big.Int) string {
	if n == nil || n.Sign() == 0 {
		return "0"
	}
	return sign + n.String()
}

// sexagesimal reads 1:30 as 90, the way old YAML did minutes and seconds.
func sexagesimal(digits string) (*big.Int, bool) {
	total := new(big.Int)
	for _, part := range strings.Split(digits, ":") {
		n, ok := new(big.Int).SetString(part, 10)
		if !ok {
			return nil, false
		}
		total.Mul(total, big.NewInt(60))
		total.Add(total, n)
	}
	return total, true
}

// plainFloat returns the number as Python prints it, "" for what JSON can't hold.
func plainFloat(text string) (string, bool) {
	s := strings.ToLower(strings.ReplaceAll(text, "_", ""))
	if strings.HasSuffix(s, "inf") || strings.HasSuffix(s, "nan") {
		return "", true
	}
	if strings.Contains(s, ":") {
		sign, total, base := 1.0, 0.0, 1.0
		if strings.HasPrefix(s, "-") {
			sign = -1
		}
		parts := strings.Split(strings.TrimLeft(s, "+-"), ":")
		for i := len(parts) - 1; i >= 0; i-- { // the order decides the last digit
			f, err := strconv.ParseFloat(parts[i], 64)
			if err != nil {
				return "", false
			}
			total += f * base
			base *= 60
		}
		return pyFloat(sign * total), true
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil && !math.IsInf(f, 0) {
		return "", false
	}
	return pyFloat(f), true
}

// canonicalFloat spells a JSON number one way, so that 1.50 and 1.5 are the same.
func canonicalFloat(num string) string {
	f, err := strconv.ParseFloat(num, 64)
	if s := pyFloat(f); err == nil && s != "" {
		return s
	}
	return num
}

// pyFloat prints a float as Python's repr does: 1.0 keeps its point, exponents begin
// at 1e16 and below 1e-4.
func pyFloat(f float64) string {
	if math.IsInf(f, 0) || math.IsNaN(f) {
		return ""
	}
	if a := math.Abs(f); a != 0 && (a < 1e-4 || a >= 1e16) {
		return strconv.FormatFloat(f, 'e', -1, 64)
	}
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}
