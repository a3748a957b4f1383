package config

import "strings"

// Option is an option of one of PostgreSQL's programs.
type Option struct {
	Name string // without dashes
	// Value is meant only when HasValue is set; a flag has none.
	Value    string
	HasValue bool
}

// Arg returns the option as a long argument, --name or --name=value.
func (o Option) Arg() string {
	if o.HasValue {
		return "--" + o.Name + "=" + o.Value
	}
	return "--" + o.Name
}

// readOptions takes the two forms of options: a list of flags and one-key mappings, or
// one mapping, whose empty and false values are left out. Numbers are taken where
// Patroni insists on quotes; one pair of quotes inside a value falls away.
func readOptions(t *tree) (options []Option, ok bool) {
	switch {
	case t.isNull():
		return nil, true
	case t.kind == kindMap:
		for _, e := range t.keys {
			if !e.val.isNull() && !e.val.isScalar() {
				return nil, false
			}
			if e.val.isNull() || e.val.text == "" || e.val.kind == kindBool && !e.val.b {
				continue
			}
			if e.val.kind == kindBool {
				options = append(options, Option{Name: e.key})
				continue
			}
			options = append(options, Option{Name: e.key, Value: unquote(e.val.text), HasValue: true})
		}
		return options, true
	case t.kind == kindList:
		for _, item := range t.list {
			switch {
			case item.isScalar() && item.kind != kindBool:
				name, value, has := strings.Cut(strings.TrimPrefix(item.text, "--"), "=")
				options = append(options, Option{Name: name, Value: value, HasValue: has})
			case item.kind == kindMap && len(item.keys) == 1 && item.keys[0].val.isScalar():
				e := item.keys[0]
				options = append(options, Option{Name: e.key, Value: unquote(e.val.text), HasValue: true})
			default:
				return nil, false
			}
		}
		return options, true
	}
	return nil, false
}

func conformOptions(t *tree) (message, hint string) {
	if _, ok := readOptions(t); !ok {
		return "is not a list of options", "write each option on a line of its own: `- flag`, or `- name: value`"
	}
	return "", ""
}

// Options that would change where a program works, which is the agent's business.
const (
	refusedInitDB     = " pgdata nosync no-sync pwfile sync-only username version help "
	refusedBasebackup = " pgdata format wal-method xlog-method gzip version help dbname host port username password no-sync write-recovery-conf "
)

// splitOptions separates the allowed options from the refused names.
func splitOptions(all []Option, refused string) (allowed []Option, bad []string) {
	for _, o := range all {
		if strings.Contains(refused, " "+o.Name+" ") {
			bad = append(bad, o.Name)
			continue
		}
		allowed = append(allowed, o)
	}
	return allowed, bad
}
