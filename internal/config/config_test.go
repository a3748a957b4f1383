package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// secretive has a secret in every place that takes one.
const secretive = `
scope: pgsql
name: pg01
restapi: {listen: "0.0.0.0:8008", connect_address: "10.0.0.1:8008", authentication: {username: a, password: s3cr3t-1}, keyfile_password: s3cr3t-2}
ctl: {auth: "a:s3cr3t-3", keyfile_password: s3cr3t-4}
raft: {self_addr: "10.0.0.1:2222", password: s3cr3t-5}
consul: {token: [s3cr3t-6]}
zookeeper: {hosts: 5, key_password: s3cr3t-7}
postgresql:
  listen: 0.0.0.0:5432
  connect_address: 10.0.0.1:5432
  data_dir: /data
  authentication:
    superuser: {username: postgres, password: s3cr3t-8, sslpassword: s3cr3t-9}
    replication: {username: repl, password: [s3cr3t-10]}
    rewind: {username: repl, pasword: s3cr3t-11}
  parameters: {primary_conninfo: "password=s3cr3t-12"}
  recovery_conf: {primary_conninfo: "password=s3cr3t-13"}
`

func TestNoSecretIsEverPrinted(t *testing.T) {
	c, err := Parse("f.yml", []byte(secretive))
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Raft.Password.Reveal() + c.Postgres.Superuser.Password.Reveal() + c.Ctl.Auth.Password.Reveal(); got != "s3cr3t-5s3cr3t-8s3cr3t-3" {
		t.Fatalf("the secrets are %q", got)
	}
	d, dynamicProblems := ParseDynamic([]byte(`{"postgresql": {"parameters": {"primary_conninfo": "password=s3cr3t-14"}}}`))
	s, effectiveProblems := Effective(c, d, 0)
	var out bytes.Buffer
	logger := slog.New(slog.NewJSONHandler(&out, nil))
	logger.Info("x", "config", *c, "secret", c.Raft.Password, "settings", s)
	logger = slog.New(slog.NewTextHandler(&out, nil))
	logger.Info("x", "config", *c, "secret", c.Raft.Password, "settings", s)
	if err := json.NewEncoder(&out).Encode([]any{c, s}); err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		fmt.Fprintf(&out, format+"\n"+format+"\n"+format+"\n", *c, c.Raft, c.Raft.Password)
		fmt.Fprintf(&out, format+"\n"+format+"\n", s, d)
	}
	problems := append(append(Validate(c, Support{Stores: []string{"raft", "consul", "zookeeper"}}), dynamicProblems...), effectiveProblems...)
	fmt.Fprintf(&out, "%s\n%v\n%+v\n", Problems(problems).Error(), StartLines(problems), Diff(c, loadDocument(t)))
	for line := range strings.Lines(out.String()) {
		if i := strings.Index(line, "s3cr3t"); i >= 0 {
			t.Errorf("a secret is shown: ...%s", line[max(0, i-80):min(len(line), i+20)])
		}
	}
	if !strings.Contains(out.String(), "***") {
		t.Error("secrets leave no trace at all; they should show as ***")
	}
}

func TestTheTablesAreConsistent(t *testing.T) {
	variables := map[string]string{}
	for name, x := range map[string]*keyIndex{"local": localIndex, "dynamic": dynamicIndex} {
		seen := map[string]bool{}
		for _, k := range x.rows {
			if seen[k.path] {
				t.Errorf("%s: %s is there twice", name, k.path)
			}
			seen[k.path] = true
			store, _, _ := strings.Cut(k.path, ".")
			isStore := localIndex.byPath[store] != 0 && strings.Contains(strings.Join(storeNames(), " "), store)
			if k.doc == "" && !isStore {
				t.Errorf("%s: %s has no description", name, k.path)
			}
			if other := variables[k.env]; k.env != "" && other != "" && other != k.path {
				t.Errorf("%s and %s share the variable %s", other, k.path, k.env)
			}
			variables[k.env] = k.path
			if k.typ == tEnum && len(k.enum) == 0 {
				t.Errorf("%s: %s has no words", name, k.path)
			}
			if k.def != "" && k.limits != nil {
				if message, _ := conform(k, newString(k.def, pos{})); message != "" {
					t.Errorf("%s: the default of %s %s", name, k.path, message)
				}
			}
			if i := strings.LastIndexByte(k.path, '.'); i >= 0 {
				if parent, ok := x.row(k.path[:i]); !ok || parent.typ != tSection {
					if k.path != "tags.*" {
						t.Errorf("%s: %s lies in no section", name, k.path)
					}
				}
			}
		}
	}
	refused := map[string]bool{"postgresql.config_dir": true} // compared with data_dir in folders
	for _, p := range promises() {
		refused[p.path] = true
		x := localIndex
		if p.shared {
			x = dynamicIndex
		}
		if row, ok := x.row(p.path); !ok || row.status != promised && row.status != partly {
			t.Errorf("%s is refused, and the table doesn't say so", p.path)
		} else if row.def != "" && p.asks(resolvePlain(row.def, pos{})) {
			t.Errorf("%s is refused at its own default", p.path)
		}
	}
	for _, x := range []*keyIndex{localIndex, dynamicIndex} {
		for _, k := range x.rows {
			if (k.status == promised || k.status == partly) && !refused[k.path] {
				t.Errorf("%s promises safety, and nothing refuses it", k.path)
			}
		}
	}
}

func TestTheReferenceNamesEveryKey(t *testing.T) {
	text := Reference()
	for _, x := range []*keyIndex{localIndex, dynamicIndex} {
		for _, k := range x.rows {
			if !strings.Contains(text, "`"+k.path+"`") {
				t.Errorf("%s is missing", k.path)
			}
			if k.env != "" && !strings.Contains(text, "`PATRONI_"+k.env+"`") {
				t.Errorf("PATRONI_%s is missing", k.env)
			}
		}
	}
	if text != Reference() {
		t.Error("two calls differ, so a check whether it is current would fail at random")
	}
}

func TestCheckHostFindsWhatIsMissing(t *testing.T) {
	dir := t.TempDir()
	bin, data := filepath.Join(dir, "bin"), filepath.Join(dir, "data")
	for _, d := range []string{bin, data} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, program := range []string{"postgres", "initdb", "pg_ctl", "pg_controldata", "pg_basebackup", "pg_isready"} {
		if err := os.WriteFile(filepath.Join(bin, program), nil, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := taken.Close(); err != nil {
			t.Error(err)
		}
	}()
	c, err := Parse("f.yml", fmt.Appendf(nil, `
scope: pgsql
name: pg01
restapi: {listen: %q, connect_address: "10.0.0.1:8008", certfile: %s/cert.pem}
raft: {self_addr: "127.0.0.1:1"}
postgresql: {data_dir: %s, bin_dir: %s}
`, taken.Addr(), dir, data, bin))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "family-photos.tar"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	check := func(o HostOptions) string { return Problems(CheckHost(c, o)).Error() }
	text := check(HostOptions{})
	for _, want := range []string{
		"restapi.listen " + taken.Addr().String() + " is taken: another program listens on",
		"can't be opened: no such file or directory",
		"lacks pg_rewind: not found in it",
		"holds files (family-photos.tar) but is no data directory",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in:\n%s", want, text)
		}
	}
	if text := check(HostOptions{IgnorePorts: true}); strings.Contains(text, "listens") {
		t.Errorf("ports were looked at: %s", text)
	}
}

func TestValidateIsTheSameEachTime(t *testing.T) {
	c, err := Parse("f.yml", []byte(secretive))
	if err != nil {
		t.Fatal(err)
	}
	first := Problems(Validate(c, Support{})).Error()
	for range 20 {
		if again := Problems(Validate(c, Support{})).Error(); again != first {
			t.Fatalf("the findings differ:\n%s\n\n%s", first, again)
		}
	}
}

// FuzzConfiguration: whatever the bytes, the loader and all that works on its result
// answers without a panic, and a problem always has words.
func FuzzConfiguration(f *testing.F) {
	f.Add([]byte(secretive), []byte(`{"ttl": 30, "postgresql": {"parameters": {"port": 1}}}`))
	for _, file := range []string{"testdata/document.yml", "testdata/as_printed.yml.txt"} {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, []byte(`{}`))
	}
	f.Add([]byte("a: &a [*a]\n? {}\n<<: [1]\n"), []byte(`{"slots": {"a": {}}, "ttl": 1e999}`))
	f.Add([]byte("tags: 1\nbootstrap: []\npostgresql: x\nregent: {raft: 3}\nlog: ~\n"), []byte(`[1`))
	f.Fuzz(func(t *testing.T, file, shared []byte) {
		d, problems := ParseDynamic(shared)
		c, err := Parse("f.yml", file)
		if err != nil {
			if err.Error() == "" {
				t.Fatal("an error without words")
			}
			return
		}
		for _, rule := range []TimingRule{{}, {Patroni: true}, {Store: "consul"}} {
			timings, more := d.Timings(rule)
			if timings.TTL <= 0 || timings.LoopWait <= 0 || timings.RetryTimeout <= 0 {
				t.Fatalf("timings %+v", timings)
			}
			problems = append(problems, more...)
		}
		_, more := Effective(c, d, 150000)
		problems = append(append(problems, more...), Validate(c, Support{Stores: []string{"raft"}})...)
		for _, p := range problems {
			if p.Message == "" || p.String() == "" {
				t.Fatalf("a problem without words: %+v", p)
			}
		}
		if len(Diff(c, c)) > 0 {
			t.Fatal("a configuration differs from itself")
		}
		if !json.Valid(c.Bootstrap.DCS) || c.Tags.Raw != nil && !json.Valid(c.Tags.Raw) {
			t.Fatalf("no JSON: %s %s", c.Bootstrap.DCS, c.Tags.Raw)
		}
	})
}

// FuzzMerge: merging a patch twice changes nothing the second time.
func FuzzMerge(f *testing.F) {
	f.Add([]byte(`{"a": {"b": 1}}`), []byte(`{"a": {"b": null, "c": [1, 2.50, "x"]}, "d": null}`))
	f.Fuzz(func(t *testing.T, current, patch []byte) {
		base, err := parseMapping(current)
		if err != nil {
			return
		}
		over, err := parseMapping(patch)
		if err != nil {
			return
		}
		patchTree(base, over)
		once := string(appendJSON(nil, base))
		again, err := parseMapping([]byte(once))
		if err != nil {
			t.Fatalf("%s: %v", once, err)
		}
		// A null inside a mapping that was new is stored, and goes the second time.
		if !bytes.Contains(patch, []byte("null")) && patchTree(again, over) {
			t.Fatalf("%s changed %s a second time", patch, once)
		}
	})
}

// TestCheckHostJudgesTheDataDirectory by PostgreSQL's own conditions, and leaves what an
// agent has left half-made to the agent.
func TestCheckHostJudgesTheDataDirectory(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "data")
	c, err := Parse("f.yml", fmt.Appendf(nil, "scope: s\nname: n\nraft: {self_addr: \"127.0.0.1:1\", partner_addrs: [\"no-such-host.invalid:1\"]}\n"+
		"restapi: {listen: \"127.0.0.1:0\"}\npostgresql: {data_dir: %s, connect_address: \"no-such-host.invalid:5432\"}\n", dir))
	if err != nil {
		t.Fatal(err)
	}
	about := func(key string, o HostOptions) (texts []string, worst Severity) {
		o.IgnorePorts = true
		for _, p := range CheckHost(c, o) {
			if strings.Contains(p.String(), key) {
				texts, worst = append(texts, p.String()), p.Severity
			}
		}
		return texts, worst
	}
	put := func(name string) {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte("15\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	wants := func(what string, o HostOptions, want string) {
		t.Helper()
		texts, _ := about("postgresql.data_dir", o)
		if want == "" && len(texts) > 0 || want != "" && !strings.Contains(strings.Join(texts, "\n"), want) {
			t.Errorf("%s: got %q, want %q", what, texts, want)
		}
	}
	wants("absent", HostOptions{}, "")
	put("left-over")
	wants("other files", HostOptions{}, "holds files (left-over) but is no data directory")
	wants("an unfinished copy", HostOptions{Unfinished: true}, "")
	put("PG_VERSION")
	wants("a data directory", HostOptions{}, "")
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	wants("open to all", HostOptions{}, "chmod 0700")
	if os.Geteuid() == 0 {
		if err := os.Chown(dir, 65534, -1); err != nil {
			t.Fatal(err)
		}
		wants("another's", HostOptions{}, "belongs to user 65534, and the agent is user 0")
	}
	for key, want := range map[string]string{"connect_address": "no-such-host.invalid", "partner_addrs": "no-such-host.invalid"} {
		texts, severity := about(key, HostOptions{})
		if len(texts) != 1 || severity != Warning || !strings.Contains(texts[0], want) || !strings.Contains(texts[0], "doesn't resolve") {
			t.Errorf("%s: %q (%s)", key, texts, severity)
		}
	}
}
