package config

import (
	"os"
	"strings"
	"testing"
)

// TestPlainScalarsAreWhatPyYAMLMakesOfThem goes through a table that PyYAML's own safe
// loader printed.
func TestPlainScalarsAreWhatPyYAMLMakesOfThem(t *testing.T) {
	text, err := os.ReadFile("testdata/pyyaml.tsv")
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(fields) != 3 {
			t.Fatalf("a row of the table has %d fields: %q", len(fields), line)
		}
		rows++
		root, problems := parseYAML("x", []byte("key: "+fields[0]+"\n"))
		if root == nil {
			t.Errorf("%q can't be read: %v", fields[0], problems)
			continue
		}
		if kind, value := describe(root.get("key")); kind != fields[1] && !(kind == "str" && fields[1] == "date") || value != fields[2] {
			t.Errorf("%q is %s %s, in PyYAML %s %s", fields[0], kind, value, fields[1], fields[2])
		}
	}
	if rows < 500 {
		t.Fatalf("only %d rows", rows)
	}
}

func describe(v *tree) (kind, value string) {
	switch {
	case v.isNull():
		return "null", "null"
	case v.kind == kindBool && v.b:
		return "bool", "true"
	case v.kind == kindBool:
		return "bool", "false"
	case v.kind == kindInt:
		return "int", v.num
	case v.kind == kindFloat:
		return "float", v.pyString()
	case v.kind == kindString:
		return "str", v.text
	}
	return v.kind.String(), ""
}

func TestQuotedAndTaggedScalars(t *testing.T) {
	for text, want := range map[string]string{
		`"0644"`: "str 0644", `'on'`: "str on", `"123456"`: "str 123456", "!!str 5": "str 5",
		"!!int 010": "int 8", "!!float 5": "float 5.0", "!!bool yes": "bool true", "!!null x": "null null",
		"|-\n  0644": "str 0644", ">-\n  on": "str on", "! 5": "int 5",
	} {
		root, problems := parseYAML("x", []byte("key: "+text+"\n"))
		if root == nil {
			t.Errorf("%q can't be read: %v", text, problems)
			continue
		}
		if kind, value := describe(root.get("key")); kind+" "+value != want {
			t.Errorf("%q is %s %s, want %s", text, kind, value, want)
		}
	}
}
