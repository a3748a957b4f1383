package pyfmt

import (
	"strings"
	"testing"
)

// The expected texts are what Python 3.11's json.dumps and PyYAML 6.0's safe_dump
// (allow_unicode, width 200) print for the same value.
func TestPrintsWhatPythonPrints(t *testing.T) {
	archive := "test ! -f /archive/%f && " + strings.Repeat("cp %p /archive/%f && ", 12) + "true"
	folded := "test ! -f /archive/%f && " + strings.Repeat("cp %p /archive/%f && ", 8) + "cp %p\n" +
		"  /archive/%f && cp %p /archive/%f && cp %p /archive/%f && cp %p /archive/%f && true"
	for name, c := range map[string]struct{ in, json, yaml, flow string }{
		"nesting": {
			in:   `{"b":1,"a":{"z":[1,{"x":null,"y":"on"}],"e":{},"l":[]}}`,
			json: `{"b": 1, "a": {"z": [1, {"x": null, "y": "on"}], "e": {}, "l": []}}`,
			yaml: "a:\n  e: {}\n  l: []\n  z:\n  - 1\n  - x: null\n    y: 'on'\nb: 1\n",
			flow: `{a: {e: {}, l: [], z: [1, {x: null, y: 'on'}]}, b: 1}`,
		},
		"lists": {
			in: `[["a","b"],[],{"k":["v"]}]`, json: `[["a", "b"], [], {"k": ["v"]}]`,
			yaml: "- - a\n  - b\n- []\n- k:\n  - v\n", flow: `[[a, b], [], {k: [v]}]`,
		},
		"strings that look like something else": {
			in: `{"a":"on","b":"1:30","c":"null","d":"0644","e":"2026-01-01","f":"a: b","g":"a #b","h":"- x","i":"","j":"it's","k":" x"}`,
			json: `{"a": "on", "b": "1:30", "c": "null", "d": "0644", "e": "2026-01-01", "f": "a: b", "g": "a #b", ` +
				`"h": "- x", "i": "", "j": "it's", "k": " x"}`,
			yaml: "a: 'on'\nb: '1:30'\nc: 'null'\nd: '0644'\ne: '2026-01-01'\nf: 'a: b'\ng: 'a #b'\nh: '- x'\ni: ''\nj: it's\nk: ' x'\n",
			flow: "{a: 'on', b: '1:30', c: 'null', d: '0644', e: '2026-01-01', f: 'a: b', g: 'a #b', h: '- x', i: '', j: it's, k: ' x'}",
		},
		"numbers": {
			in:   `[100000000000000000000,1.50,1e20,1e-7,123456789.25,1E3,-0,true]`,
			json: `[100000000000000000000, 1.5, 1e+20, 1e-07, 123456789.25, 1000.0, 0, true]`,
			yaml: "- 100000000000000000000\n- 1.5\n- 1.0e+20\n- 1.0e-07\n- 123456789.25\n- 1000.0\n- 0\n- true\n",
			flow: "[100000000000000000000, 1.5, 1.0e+20, 1.0e-07, 123456789.25, 1000.0, 0, true]",
		},
		"letters and controls": {
			in:   `{"u":"größe 😀","n":"a\nb","t":"a\tb\u0007","q":"\"\\"}`,
			json: `{"u": "gr\u00f6\u00dfe \ud83d\ude00", "n": "a\nb", "t": "a\tb\u0007", "q": "\"\\"}`,
			yaml: "n: 'a\n\n  b'\nq: '\"\\'\nt: \"a\\tb\\a\"\nu: größe 😀\n",
			flow: "{n: 'a\n\n    b', q: '\"\\', t: \"a\\tb\\a\", u: größe 😀}",
		},
		"long text folds at a blank": {
			in: `{"c":"` + archive + `"}`, json: `{"c": "` + archive + `"}`,
			yaml: "c: " + folded + "\n",
			flow: "{c: " + strings.ReplaceAll(folded, "\n  ", "\n    ") + "}",
		},
	} {
		t.Run(name, func(t *testing.T) {
			v, err := Parse([]byte(c.in))
			if err != nil {
				t.Fatal(err)
			}
			for _, got := range []struct{ form, got, want string }{
				{"json", v.JSON(), c.json}, {"yaml", v.YAML(), c.yaml}, {"flow", v.Flow(), c.flow},
			} {
				if got.got != got.want {
					t.Errorf("%s:\n%s\nwant:\n%s", got.form, got.got, got.want)
				}
			}
		})
	}
}

func TestParseRefusesWhatIsNoSingleValue(t *testing.T) {
	for _, in := range []string{``, `{`, `{"a":1} 2`, `[1,]`, `{1:2}`, `nope`} {
		if v, err := Parse([]byte(in)); err == nil {
			t.Errorf("%q was read as %s", in, v.JSON())
		}
	}
}

func TestOfAKeyThatStandsTwiceTheLastCounts(t *testing.T) {
	v, err := Parse([]byte(`{"a":1,"b":2,"a":3}`))
	if err != nil || v.JSON() != `{"a": 3, "b": 2}` {
		t.Errorf("%s, %v", v.JSON(), err)
	}
}
