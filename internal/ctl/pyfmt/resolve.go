package pyfmt

import "regexp"

// plainMeans says whether a plain scalar of YAML 1.1 would be read as something else
// than a string, so that a string of this form needs quotes.
func plainMeans(s string) bool {
	if s == "" {
		return true
	}
	for _, re := range []string{reBool, reFloat, reInt, reNull, reTime, `=|<<`} {
		if matched, err := regexp.MatchString(`^(?:`+re+`)$`, s); matched || err != nil {
			return true // a pattern that doesn't compile quotes everything, and fails the tests
		}
	}
	return false
}

// The scalars of YAML 1.1 in PyYAML's reading.
const (
	reBool  = `yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF`
	reNull  = `~|null|Null|NULL`
	reInt   = `[-+]?0b[01_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+|[-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+`
	reFloat = `[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?|` +
		`[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)`
	reTime = `[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt]|[ \t]+)[0-9]{1,2}:[0-9]{2}:[0-9]{2}` +
		`(?:\.[0-9]*)?(?:[ \t]*(?:Z|[-+][0-9]{1,2}(?::[0-9]{2})?))?`
)
