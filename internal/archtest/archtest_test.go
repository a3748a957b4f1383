package archtest

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/cockroachdb/datadriven"
)

func TestTreeKeepsTheRules(t *testing.T) {
	tree, err := Load(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	if len(tree.Files) < 10 {
		t.Fatalf("only %d Go files found; is this the root of the module?", len(tree.Files))
	}
	for _, v := range Check(tree, Rules(), Exceptions()) {
		t.Error(v)
	}
}

// TestRulesBite checks small trees with planted violations. A block's input is the files of
// a tree, each after a line "-- path --"; its output is what the rules say about it.
// Placeholders @later@ and @home@ stand for words that the tree itself must not contain,
// "@lines N TEXT" for N lines of text. Arguments of a block are exceptions: RULE=(PATH,SYMBOL,REASON).
func TestRulesBite(t *testing.T) {
	seen := map[string]bool{}
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			tree, err := Load(plant(d.Input))
			if err != nil {
				return "error: " + err.Error()
			}
			var exceptions []Exception
			for _, arg := range d.CmdArgs {
				exceptions = append(exceptions, Exception{
					Rule: arg.Key, Path: arg.Vals[0], Symbol: arg.Vals[1], Reason: arg.Vals[2],
				})
			}
			var out strings.Builder
			for _, v := range Check(tree, Rules(), exceptions) {
				seen[v.Rule], seen[v.Reason] = true, true
				out.WriteString(v.String() + "\n")
			}
			if out.Len() == 0 {
				return "nothing to say"
			}
			return placeholders.Replace(out.String())
		})
	})
	for _, rule := range Rules() {
		if !seen[rule.Name] {
			t.Errorf("no planted violation of %s: a rule that can't fail is a defect", rule.Name)
		}
	}
	for _, a := range arrows() {
		if !seen[a.reason] {
			t.Errorf("no planted violation of the arrow of %v (%s)", a.who, a.reason)
		}
	}
}

// What the tree must not contain, and how test data writes it.
var (
	placeholders = strings.NewReplacer("TO"+"DO", "@later@", "/home/"+"somebody", "@home@")
	words        = strings.NewReplacer("@later@", "TO"+"DO", "@home@", "/home/"+"somebody")
	lines        = regexp.MustCompile(`(?m)^@lines (\d+) (.*\n)`)
)

func plant(input string) fstest.MapFS {
	input = words.Replace(input + "\n")
	input = lines.ReplaceAllStringFunc(input, func(m string) string {
		parts := lines.FindStringSubmatch(m)
		n, _ := strconv.Atoi(parts[1]) // digits, by the expression
		return strings.Repeat(parts[2], n)
	})
	files := fstest.MapFS{}
	var name string
	for line := range strings.Lines(input) {
		if n, ok := strings.CutPrefix(strings.TrimSpace(line), "-- "); ok && strings.HasSuffix(n, " --") {
			name = strings.TrimSuffix(n, " --")
			files[name] = &fstest.MapFile{}
			continue
		}
		files[name].Data = append(files[name].Data, line...)
	}
	return files
}
