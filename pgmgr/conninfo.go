package pgmgr

import (
	"fmt"
	"strings"
)

// conninfo is a libpq connection string in the making: keywords in order.
type conninfo []setting

// setting is a name and a value, of a connection string or a configuration file.
type setting struct{ name, value string }

// add appends a keyword unless its value is empty: libpq then uses its default.
func (c conninfo) add(name, value string) conninfo {
	if value == "" {
		return c
	}
	return append(c, setting{name, value})
}

// String prints the keyword/value form. Empty values and those with blanks,
// quotes or backslashes are quoted.
func (c conninfo) String() string {
	parts := make([]string, len(c))
	for i, s := range c {
		parts[i] = s.name + "=" + quoteConninfo(s.value)
	}
	return strings.Join(parts, " ")
}

// quoteConninfo quotes a value as libpq's connection strings want it.
func quoteConninfo(v string) string {
	if v != "" && !strings.ContainsAny(v, " \t\r\n\v\f'\\=") {
		return v
	}
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(v) + "'"
}

// parseConninfo reads the keyword/value form, as PostgreSQL shows it. It is not
// for URIs.
func parseConninfo(s string) (map[string]string, error) {
	out := map[string]string{}
	for {
		s = strings.TrimLeft(s, " \t\r\n\v\f")
		if s == "" {
			return out, nil
		}
		name, rest, ok := strings.Cut(s, "=")
		if !ok {
			return nil, fmt.Errorf("parse conninfo: %q has no value", s)
		}
		value, rest, err := conninfoValue(strings.TrimLeft(rest, " \t\r\n\v\f"))
		if err != nil {
			return nil, err
		}
		out[strings.TrimSpace(name)] = value
		s = rest
	}
}

// conninfoValue reads one value, quoted or not, and returns what follows it.
func conninfoValue(s string) (value, rest string, err error) {
	var b strings.Builder
	quoted := strings.HasPrefix(s, "'")
	if quoted {
		s = s[1:]
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		case quoted && c == '\'':
			return b.String(), s[i+1:], nil
		case !quoted && strings.IndexByte(" \t\r\n\v\f", c) >= 0:
			return b.String(), s[i:], nil
		default:
			b.WriteByte(c)
		}
	}
	if quoted {
		return "", "", fmt.Errorf("parse conninfo: quote isn't closed")
	}
	return b.String(), "", nil
}

// hostPort is the host:port part of a connection string, "" if there is no host.
// It never contains credentials.
func hostPort(s string) string {
	kv, err := parseConninfo(s)
	if err != nil || kv["host"] == "" {
		return ""
	}
	port := kv["port"]
	if port == "" {
		port = "5432"
	}
	return kv["host"] + ":" + port
}

// quoteGUC quotes a value for postgresql.conf: quotes and backslashes are doubled,
// line breaks written as escapes, because the file's strings end with the line.
func quoteGUC(v string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `''`, "\n", `\n`, "\r", `\r`).Replace(v) + "'"
}

// quoteIdent quotes an SQL identifier.
func quoteIdent(v string) string { return `"` + strings.ReplaceAll(v, `"`, `""`) + `"` }

// quoteLiteral quotes an SQL string literal, whatever standard_conforming_strings says.
func quoteLiteral(v string) string {
	q := "'" + strings.ReplaceAll(v, "'", "''") + "'"
	if strings.Contains(v, `\`) {
		q = " E" + strings.ReplaceAll(q, `\`, `\\`)
	}
	return q
}

// escapePgPass escapes a field of a password file.
func escapePgPass(v string) string {
	return strings.NewReplacer(`\`, `\\`, ":", `\:`).Replace(v)
}
