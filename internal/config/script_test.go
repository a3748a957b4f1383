package config

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
)

// TestScripts runs testdata/scripts: what an operator is told, and what comes out of
// the merges, word by word. Run with -rewrite after a change and read the difference.
//
//	load [stores=(raft)]   a file → problems, with their severity
//	start                  a file → the lines an agent logs
//	env                    variables, a line ===, a file → the merged document
//	dynamic                /config → problems and the decoded values
//	timings [patroni] [store=raft]   /config → the periods in force
//	patch                  current, a line ===, patch → merged, changed
//	effective [version=N]  a file, a line ===, /config → PostgreSQL's settings
//	tags                   a file → decoded and published tags
//	diff                   two files → what changed
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata/scripts", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			input, second, _ := strings.Cut(d.Input, "\n===\n")
			switch d.Cmd {
			case "load":
				return scriptLoad(d, input)
			case "start":
				c, err := Parse("patroni.yml", []byte(input))
				if err != nil {
					return err.Error()
				}
				return strings.Join(StartLines(Validate(c, Support{Stores: []string{"raft"}})), "\n")
			case "env":
				return scriptEnv(input, second)
			case "dynamic":
				return scriptDynamic(input)
			case "timings":
				return scriptTimings(d, input)
			case "patch":
				base, err := parseMapping([]byte(input))
				if err != nil {
					return err.Error()
				}
				over, err := parseMapping([]byte(second))
				if err != nil {
					return err.Error()
				}
				changed := patchTree(base, over)
				return fmt.Sprintf("%s\nchanged: %v", appendJSON(nil, base), changed)
			case "effective":
				return scriptEffective(d, input, second)
			case "tags":
				c, err := Parse("patroni.yml", []byte(input))
				if err != nil {
					return err.Error()
				}
				tags := c.Tags
				tags.Raw = nil
				return fmt.Sprintf("%+v\npublished: %s%s", tags, c.Tags.Raw, problemLines(checkTags(c.root.get("tags"))))
			case "diff":
				return scriptDiff(input, second)
			}
			t.Fatalf("%s: no such command: %s", d.Pos, d.Cmd)
			return ""
		})
	})
}

func problemLines(ps []Problem) string {
	var b strings.Builder
	for _, p := range ps {
		fmt.Fprintf(&b, "\n%s: %s", p.Severity, p)
	}
	return b.String()
}

func scriptLoad(d *datadriven.TestData, input string) string {
	stores := []string{"raft"}
	if d.HasArg("stores") {
		stores = nil
		for _, arg := range d.CmdArgs {
			if arg.Key == "stores" {
				stores = append(stores, arg.Vals...)
			}
		}
	}
	// Tabs would be lost on the way through editors.
	c, err := Parse("patroni.yml", []byte(strings.ReplaceAll(input, "<TAB>", "\t")))
	if err != nil {
		return err.Error()
	}
	out := strings.TrimPrefix(problemLines(Validate(c, Support{Stores: stores})), "\n")
	if out == "" {
		return "ok"
	}
	return out
}

func scriptEnv(variables, file string) string {
	root, _ := parseYAML("patroni.yml", []byte(file))
	if root == nil || root.kind != kindMap {
		root = newMap(pos{})
	}
	vars := map[string]string{}
	for _, line := range strings.Split(variables, "\n") {
		name, value, _ := strings.Cut(line, "=")
		vars[strings.TrimPrefix(name, envPrefix)] = value
	}
	env, problems := environmentTree(canonical(vars))
	root = root.clone()
	patchTree(root, env)
	return string(appendJSON(nil, root)) + problemLines(problems)
}

// canonical runs the variables through the reader of the process's environment.
func canonical(vars map[string]string) map[string]string {
	var environ []string
	for name, value := range vars {
		environ = append(environ, envPrefix+name+"="+value)
	}
	slices.Sort(environ)
	return variables(environ)
}

func scriptDynamic(input string) string {
	d, problems := ParseDynamic(json.RawMessage(input))
	d.root = nil
	raw := fmt.Sprintf("standby_cluster %s slots %s ignore_slots %s", d.StandbyCluster, d.Slots, d.IgnoreSlots)
	d.StandbyCluster, d.Slots, d.IgnoreSlots = nil, nil, nil
	text := fmt.Sprintf("%+v", d)
	for _, empty := range []string{" root:<nil>", " StandbyCluster:[]", " Slots:[]", " IgnoreSlots:[]"} {
		text = strings.ReplaceAll(text, empty, "")
	}
	return text + "\n" + raw + problemLines(problems)
}

func scriptTimings(d *datadriven.TestData, input string) string {
	rule := TimingRule{Patroni: d.HasArg("patroni"), Store: "raft"}
	d.MaybeScanArgs(&testing.T{}, "store", &rule.Store)
	dynamic, _ := ParseDynamic(json.RawMessage(input))
	timings, problems := dynamic.Timings(rule)
	return fmt.Sprintf("ttl %v, loop_wait %v, retry_timeout %v%s", timings.TTL, timings.LoopWait, timings.RetryTimeout, problemLines(problems))
}

func scriptEffective(d *datadriven.TestData, file, shared string) string {
	version := 0
	d.MaybeScanArgs(&testing.T{}, "version", &version)
	c, err := Parse("patroni.yml", []byte(file))
	if err != nil {
		return err.Error()
	}
	dynamic, _ := ParseDynamic(json.RawMessage(shared))
	s, problems := Effective(c, dynamic, version)
	var b strings.Builder
	for _, p := range s.CommandLine {
		fmt.Fprintf(&b, "--%s=%s ", p.Key, p.Value)
	}
	fmt.Fprintf(&b, "\nfile: %v\nrecovery: %v\n", s.Postgres.Parameters, s.Postgres.RecoveryConf)
	pg := s.Postgres
	fmt.Fprintf(&b, "hba: %q rewind: %v slots: %v data_dir: %s listen: %s:%d timeout: %v",
		pg.PgHBA, pg.UsePgRewind, pg.UseSlots, pg.DataDir, pg.ListenAddresses, pg.Port, pg.PgCtlTimeout)
	return b.String() + problemLines(problems)
}

func scriptDiff(old, updated string) string {
	a, err := Parse("old.yml", []byte(old))
	if err != nil {
		return err.Error()
	}
	b, err := Parse("new.yml", []byte(updated))
	if err != nil {
		return err.Error()
	}
	var lines []string
	for _, c := range Diff(a, b) {
		line := c.Path
		if c.NeedsRestart {
			line += " (restart)"
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}
