package interop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgregent/regent/internal/sandbox"
)

// moment is a state of a cluster of two, n1 and n2, in which its keys are compared.
type moment struct {
	name string
	// do brings it about by patronictl; wait tells what the keys lack until it is there.
	do   [][]string
	put  map[string]string // keys that somebody else wrote
	wait func(keys map[string]string) error
	// patroni: a thing that Regent can't do yet, or never will.
	patroni bool
}

// has waits for texts in a key.
func has(key string, texts ...string) func(map[string]string) error {
	return func(keys map[string]string) error {
		for _, t := range texts {
			if value, ok := keys[key]; !ok || !strings.Contains(value, t) {
				return fmt.Errorf("%s has no %s: %s", key, t, keys[key])
			}
		}
		return nil
	}
}

// hasNot waits until texts are gone from a key.
func hasNot(key string, texts ...string) func(map[string]string) error {
	return func(keys map[string]string) error {
		for _, t := range texts {
			if strings.Contains(keys[key], t) {
				return fmt.Errorf("%s still has %s: %s", key, t, keys[key])
			}
		}
		return nil
	}
}

func all(conditions ...func(map[string]string) error) func(map[string]string) error {
	return func(keys map[string]string) error {
		var errs []error
		for _, c := range conditions {
			errs = append(errs, c(keys))
		}
		return errors.Join(errs...)
	}
}

// running waits until both members are up, and nothing is under way.
func running(primary, replica string, timeline int) func(map[string]string) error {
	tl := fmt.Sprintf(`"timeline":%d`, timeline)
	return all(has("leader", primary), has("status", "optime"),
		has("members/"+primary, `"state":"running"`, "xlog_location", tl), hasNot("members/"+primary, "checkpoint_after_promote", "replica"),
		has("members/"+replica, `"state":"running"`, `"role":"replica"`, "xlog_location", tl))
}

func edit(args ...string) []string {
	return append([]string{"edit-config", "demo", "--force", "--quiet"}, args...)
}

// moments are the life of a cluster, one after the other.
func moments() []moment {
	const far = "2036-01-02T03:04:05+00:00"
	return []moment{
		{name: "bootstrapped, a replica has joined", wait: all(running("n1", "n2", 1), has("config", "ttl"), has("initialize", "7"))},
		{
			name: "a parameter that needs a restart, and a key that nobody knows",
			do:   [][]string{edit("-p", "wal_level=logical", "-s", "owner.team=dba")},
			wait: all(has("config", "dba"), has("members/n1", "pending_restart"), has("members/n2", "pending_restart")),
		},
		{
			name: "a restart is scheduled",
			do:   [][]string{{"restart", "demo", "n2", "--scheduled", far, "--pending", "--force"}},
			wait: has("members/n2", `"scheduled_restart"`, `"restart_pending"`),
		},
		{
			name: "restarted",
			do:   [][]string{{"flush", "demo", "n2", "restart", "--force"}, {"restart", "demo", "n1", "--force"}, {"restart", "demo", "n2", "--force"}},
			wait: all(running("n1", "n2", 1), hasNot("members/n1", "pending"), hasNot("members/n2", "pending", "scheduled")),
		},
		{
			name: "paused", do: [][]string{{"pause", "demo"}},
			wait: all(has("config", `"pause":true`), has("members/n1", `"pause":true`), has("members/n2", `"pause":true`)),
		},
		{
			name: "resumed", do: [][]string{{"resume", "demo"}},
			wait: all(hasNot("config", "pause"), hasNot("members/n1", "pause"), hasNot("members/n2", "pause")),
		},
		{
			name: "a switchover is scheduled",
			do:   [][]string{{"switchover", "demo", "--leader", "n1", "--candidate", "n2", "--scheduled", far, "--force"}},
			wait: has("failover", "scheduled_at"),
		},
		{name: "it is discarded", do: [][]string{{"flush", "demo", "switchover", "--force"}}, wait: hasNot("failover", "scheduled_at")},
		{
			name: "a permanent slot", patroni: true,
			do:   [][]string{edit("-s", "slots.app.type=logical", "-s", "slots.app.database=postgres", "-s", "slots.app.plugin=pgoutput")},
			wait: all(running("n1", "n2", 1), has("status", `"app"`)),
		},
		{name: "failsafe mode", patroni: true, do: [][]string{edit("-s", "failsafe_mode=true")}, wait: all(running("n1", "n2", 1), has("failsafe", "n1", "n2"))},
		{
			name: "synchronous mode", patroni: true,
			do: [][]string{edit("-s", "synchronous_mode=true", "-s", "failsafe_mode=null")}, wait: all(running("n1", "n2", 1), has("sync", `"n1"`, `"n2"`)),
		},
		{
			name: "and no longer", patroni: true,
			do: [][]string{edit("-s", "synchronous_mode=null", "-s", "slots=null")}, wait: all(running("n1", "n2", 1), hasNot("sync", "n1"), hasNot("status", `"app"`)),
		},
		{
			name: "switched over", do: [][]string{{"switchover", "demo", "--leader", "n1", "--candidate", "n2", "--force"}},
			wait: all(running("n2", "n1", 2), has("history", `"n2"`), hasNot("failover", "n2")),
		},
		{
			name: "and back", do: [][]string{{"switchover", "demo", "--leader", "n2", "--candidate", "n1", "--force"}},
			wait: all(running("n1", "n2", 3), has("history", `"n1"`), hasNot("failover", "n1")),
		},
		{
			name: "a member of an old version has come",
			put: map[string]string{"members/old": `{"conn_url":"postgres://old:5432/postgres","api_url":"http://127.0.0.1:1/patroni",` +
				`"state":"stopped","role":"replica","version":"2.0.2","tags":{"nofailover":true}}`},
			do:   [][]string{{"restart", "demo", "n1", "--force"}}, // which writes WAL
			wait: all(running("n1", "n2", 3), has("optime/leader", "")),
		},
	}
}

// live plays the moments on a cluster of one program, and returns what each changed.
func live(t *testing.T, store string, program sandbox.Program) map[string]map[string]string {
	t.Helper()
	if testing.Short() {
		t.Skip("takes a minute: real clusters are left out of -short")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	c := Start(t, Options{Store: store, Members: []sandbox.Program{program, program}})
	n1, n2 := c.Nodes()[0], c.Nodes()[1]
	addTo(t, n2.ConfigFile(), "\ntags:\n  clonefrom: true\n  datacenter: east\n")
	if err := n1.PowerOn(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.AwaitPrimary(ctx); err != nil {
		t.Fatal(err)
	}
	if err := n2.PowerOn(); err != nil {
		t.Fatal(err)
	}
	clean := normaliser(c)
	before, seen := map[string]string{}, map[string]map[string]string{}
	for _, m := range moments() {
		if m.patroni && program != sandbox.Patroni {
			continue
		}
		for key, value := range m.put {
			if err := c.Store.Put(ctx, key, value); err != nil {
				t.Fatal(err)
			}
		}
		for _, args := range m.do {
			if out, err := c.Patronictl(ctx, n1, args...); err != nil {
				t.Fatalf("%s: %v\n%s", m.name, err, out)
			}
		}
		step, done := context.WithTimeout(ctx, time.Minute)
		keys, err := c.AwaitKeys(step, m.wait)
		done()
		if err != nil {
			t.Fatalf("%s: %v", m.name, err)
		}
		now := clean(keys)
		if program == sandbox.Regent {
			for key, value := range now {
				now[key] = asOldPatroni(t, key, value)
			}
		}
		seen[m.name] = map[string]string{}
		for key, value := range now {
			if before[key] != value {
				seen[m.name][key] = value
			}
		}
		before = now
	}
	if program == sandbox.Regent {
		keepsUnknown(ctx, t, c)
	}
	return seen
}

// keepsUnknown: a field of /status that nobody knows outlives the holder's next write.
func keepsUnknown(ctx context.Context, t *testing.T, c *Cluster) {
	t.Helper()
	if err := c.Store.Put(ctx, "status", `{"optime":1,"owner":{"team":"dba"}}`); err != nil {
		t.Fatal(err)
	}
	_, err := c.AwaitKeys(ctx, all(has("status", `"owner":{"team":"dba"}`, `"slots":`), hasNot("status", `"optime":1,`)))
	if err != nil {
		t.Error(err)
	}
}

func addTo(t *testing.T, file, text string) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
	if err == nil {
		_, err = f.WriteString(text)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

var (
	positions = regexp.MustCompile(`("(?:xlog_location|replay_lsn|receive_lsn|optime)":)\d+`)
	slotsAt   = regexp.MustCompile(`("(?:app|n1|n2)":)\d+`)
	switches  = regexp.MustCompile(`(\[\d+,)\d+,`)
	times     = regexp.MustCompile(`\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d\.\d+[+-]\d\d:\d\d`)
)

// normaliser replaces what is another at each run: ports, identifier, positions and times.
func normaliser(c *Cluster) func(map[string]string) map[string]string {
	var pairs []string
	for _, n := range c.Nodes() {
		for port, name := range c.PortNames() {
			if name == n.Name() {
				pairs = append(pairs, fmt.Sprintf("127.0.0.1:%d", port), n.Name()+":5432")
			}
		}
		pairs = append(pairs, strings.TrimPrefix(n.RESTURL(), "http://"), n.Name()+":8008")
	}
	return func(keys map[string]string) map[string]string {
		names := strings.NewReplacer(append(slices.Clone(pairs), keys["initialize"], "7000000000000000001")...)
		out := map[string]string{}
		for key, value := range keys {
			value = names.Replace(value)
			value = positions.ReplaceAllString(value, "${1}67108864")
			value = slotsAt.ReplaceAllString(value, "${1}67108864")
			value = times.ReplaceAllString(value, "2026-01-02T03:04:05.678901+00:00")
			if key == "optime/leader" {
				value = "67108864"
			}
			if key == "history" {
				value = switches.ReplaceAllString(value, "${1}67108864,")
			}
			out[key] = value
		}
		return out
	}
}

// recording holds the moments with the keys that each changed, as a script of TestRecordedKeys.
// It is the same on both stores.
const recording = "testdata/keys/patroni-3.0.2"

// recorded reads it.
func recorded(t *testing.T) map[string]map[string]string {
	t.Helper()
	content, err := os.ReadFile(recording)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]map[string]string{}
	name := ""
	for block := range strings.SplitSeq(string(content), "\n\n") {
		input, _, _ := strings.Cut(block, "\n----")
		for line := range strings.Lines(input) {
			line = strings.TrimSuffix(line, "\n")
			if title, ok := strings.CutPrefix(line, "# "); ok {
				name = title
				continue
			}
			if key, value, ok := strings.Cut(line, " "); ok {
				if out[name] == nil {
					out[name] = map[string]string{}
				}
				out[name][key] = value
			}
		}
	}
	return out
}

// A live Patroni writes what is recorded of it; on both stores the same, but the second one only
// `make interop` asks. REGENT_INTEROP_RECORD names a folder into which what it writes now is
// written as new recordings.
func TestPatroniWritesWhatIsRecorded(t *testing.T) {
	t.Parallel()
	stores, dir := []string{"etcd3"}, os.Getenv("REGENT_INTEROP_RECORD")
	if full() != "" || dir != "" {
		stores = append(stores, "consul")
	}
	for _, store := range stores {
		t.Run(store, func(t *testing.T) {
			t.Parallel()
			seen := live(t, store, sandbox.Patroni)
			if dir != "" {
				record(t, filepath.Join(dir, filepath.Base(recording)+"-"+store), seen)
				return
			}
			compare(t, recorded(t), seen)
		})
	}
}

// Regent writes the bytes that Patroni wrote in the same state, apart from what later versions of
// Patroni, which it is one of, write otherwise.
func TestRegentWritesPatronisBytes(t *testing.T) {
	t.Parallel()
	for _, store := range []string{"etcd3", "consul"} {
		t.Run(store, func(t *testing.T) {
			t.Parallel()
			seen := live(t, store, sandbox.Regent)
			want := recorded(t)
			for _, m := range moments() {
				if m.patroni {
					delete(want, m.name)
				}
			}
			compare(t, want, seen)
		})
	}
}

// newer are the fields that Patroni 3.0.2 didn't have, and those that are Regent's own.
var newer = regexp.MustCompile(`,"(?:replay_lsn|receive_lsn)":\d+|,"(?:replication_state|regent|regent_lease|regent_unfenced)":"[^"]*"` +
	`|,"(?:pending_restart_reason|slots)":\{[^}]*\}+|,"retain_slots":\[[^]]*\]`)

// schedule are the fields of a scheduled restart, whose order is that of the request in Patroni.
var schedule = regexp.MustCompile(`("scheduled_restart":\{)("schedule".*),("restart_pending":true)`)

func asOldPatroni(t *testing.T, key, value string) string {
	t.Helper()
	if !json.Valid([]byte(value)) && key != "leader" {
		t.Errorf("%s is no JSON: %s", key, value)
	}
	if key == "config" {
		return value
	}
	value = newer.ReplaceAllString(value, "")
	value = schedule.ReplaceAllString(value, "${1}${3},${2}")
	return strings.NewReplacer(`"role":"primary"`, `"role":"master"`, `"version":"4.1.4"`, `"version":"3.0.2"`).Replace(value)
}

// compare reports each key that is other than it should be.
func compare(t *testing.T, want, got map[string]map[string]string) {
	t.Helper()
	for _, m := range moments() {
		for key, value := range want[m.name] {
			if got[m.name][key] != value {
				t.Errorf("%s:\n%s\n  is        %s\n  should be %s", m.name, key, got[m.name][key], value)
			}
		}
		for key, value := range got[m.name] {
			if _, ok := want[m.name][key]; !ok {
				t.Errorf("%s: %s is %s, and should not have changed", m.name, key, value)
			}
		}
	}
}

func record(t *testing.T, file string, seen map[string]map[string]string) {
	t.Helper()
	var b strings.Builder
	for i, m := range moments() {
		if i > 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "# %s\nkeys\n", m.name)
		var lines []string
		for key, value := range seen[m.name] {
			lines = append(lines, key+" "+value)
		}
		slices.Sort(lines)
		fmt.Fprintf(&b, "%s\n----\n", strings.Join(lines, "\n"))
	}
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
}
