package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The document that Regent's first user started from prints its configuration with tabs
// and with keys beside the section they belong to. As printed it must be refused with a
// place and a remedy; with both corrected it must do what it says.

func TestTheDocumentAsPrintedIsRefusedWithPlaceAndRemedy(t *testing.T) {
	text, err := os.ReadFile("testdata/as_printed.yml.txt")
	if err != nil {
		t.Fatal(err)
	}
	_, err = Parse("/etc/patroni.yml", text)
	want := "/etc/patroni.yml:6:1: a tab in the indentation, in 54 lines, of which this is the first: " +
		"YAML indents with blanks only — replace each tab at the beginning of a line by two blanks " +
		"(`expand -i -t 2 FILE`), then check that nested keys stand deeper than the key they belong to"
	if err == nil || err.Error() != want {
		t.Fatalf("got  %v\nwant %s", err, want)
	}
	expanded := strings.ReplaceAll(string(text), "\t", "  ")
	_, err = Parse("/etc/patroni.yml", []byte(expanded))
	if err == nil || !strings.HasPrefix(err.Error(), "/etc/patroni.yml:34:9: the line doesn't fit into the mapping around it") {
		t.Fatalf("with blanks for tabs: %v, want the first line that is indented otherwise", err)
	}
}

func loadDocument(t *testing.T) *Config {
	t.Helper()
	c, err := Load("testdata/document.yml", nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestTheDocumentCorrectedRunsWhereItsStoreIsBuiltIn(t *testing.T) {
	c := loadDocument(t)
	problems := Validate(c, Support{Stores: []string{"raft", "etcd3"}})
	if worst, _ := Worst(problems); worst != Notice {
		t.Fatalf("the worst finding is %v:%s", worst, problemLines(problems))
	}
	want := "settings without effect in this release: postgresql.callbacks.on_start, " +
		"postgresql.callbacks.on_restart, postgresql.callbacks.on_role_change"
	if lines := StartLines(problems); lines[0] != want || strings.HasPrefix(lines[1], "unknown settings") {
		t.Fatalf("the agent says %q", lines)
	}
	if _, problems := ParseDynamic(c.Bootstrap.DCS); Errors(problems) != nil {
		t.Fatalf("bootstrap.dcs: %v", Errors(problems))
	}
}

func TestTheDocumentCorrectedNamesItsStoreWhereItIsNot(t *testing.T) {
	err := Errors(Validate(loadDocument(t), Support{Stores: []string{"raft"}}))
	want := "configuration refused:\ntestdata/document.yml:10:3: etcd3 is a store that isn't built in — this build has: raft"
	if err == nil || err.Error() != want {
		t.Fatalf("got  %v\nwant %s", err, want)
	}
}

func TestTheDocumentCorrectedMeansWhatItSays(t *testing.T) {
	c := loadDocument(t)
	d, _ := ParseDynamic(c.Bootstrap.DCS)
	s, _ := Effective(c, d, 150000)
	command := map[string]string{}
	for _, p := range s.CommandLine {
		command[p.Key] = p.Value
	}
	for _, check := range []struct {
		what      string
		got, want any
	}{
		{"scope", c.Scope, "pgsql"},
		{"name", string(c.Name), "pg01"},
		{"namespace", c.Namespace, "/service"},
		{"api_url", c.REST.URL(), "http://172.1.1.197:8008/patroni"},
		{"listen", c.REST.Listen.String(), "0.0.0.0:8008"},
		{"data_dir", s.Postgres.DataDir, "/var/lib/pgsql/12/data"},
		{"run_dir", c.Regent.RunDir, "/var/lib/pgsql/12/data.regent"},
		{"initdb", fmt.Sprint(c.Bootstrap.InitDB[0].Arg(), c.Bootstrap.InitDB[3].Arg()), "--encoding=UTF8--data-checksums"},
		{"hba", len(c.Bootstrap.PgHBA), 2},
		{"basebackup", s.Postgres.Basebackup[0].Arg(), "--max-rate=100M"},
		{"password", s.Postgres.Superuser.Password.Reveal(), "123456"},
		{"ttl", d.TTL, 30 * time.Second},
		{"start timeout", d.PrimaryStartTimeout, 300 * time.Second},
		{"sync", d.SynchronousMode, "off"},
		{"rewind", s.Postgres.UsePgRewind, true},
		{"wal_level", command["wal_level"], "logical"},
		{"max_connections", command["max_connections"], "200"},
		{"port", command["port"], "5432"},
		{"wal_keep_size", s.Postgres.Parameters["wal_keep_size"], "1600MB"},
		{"dotted", s.Postgres.Parameters["pg_stat_log.track_utility"], "true"},
		{"restore_command", s.Postgres.RecoveryConf["restore_command"], "DATE=`date +%Y%m%d`;DIR=\"/back/$DATE\";cp $DIR/%f %p"},
		{"no targets", len(s.Postgres.RecoveryConf), 1},
		{"published tags", string(c.Tags.Raw), ""},
	} {
		if check.got != check.want {
			t.Errorf("%s: %v, want %v", check.what, check.got, check.want)
		}
	}
	for _, gone := range []string{"listen_addresses", "port", "recovery_target_time", "recovery_target_timeline", "restore_command", "wal_keep_segments"} {
		if v, ok := s.Postgres.Parameters[gone]; ok {
			t.Errorf("%s=%s would be in postgresql.conf", gone, v)
		}
	}
	// The store gets the file's own words in the file's order.
	if got := string(c.Bootstrap.DCS); !strings.HasPrefix(got, `{"ttl":30,"loop_wait":10,"retry_timeout":10,"maximum_lag_on_failover":1048576,"master_start_timeout":300,`) {
		t.Errorf("bootstrap.dcs is %s", got)
	}
}

func TestLoadSources(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	file := write("one.yml", "scope: fromfile\nname: a\n")
	write("d/10-base.yml", "scope: base\nname: base\ntags: {zone: eu, clonefrom: true}\n")
	write("d/20-local.yaml", "name: local\ntags: {clonefrom: null}\n")
	write("d/30-empty.yml", "# nothing\n")
	write("d/ignored.conf", "scope: wrong\n")
	write("bad/1.yml", "scope:\n\tx\n")
	write("bad/2.yml", "- list\n")
	missing := filepath.Join(dir, "none.yml")
	for _, c := range []struct {
		what, path  string
		environ     []string
		scope, name string
		tags        string
		err         string
	}{
		{"a file", file, nil, "fromfile", "a", "", ""},
		{"a file and the environment", file, []string{"PATRONI_SCOPE=env", "PATRONI_NAME=", "HOME=/x"}, "env", "a", "", ""},
		{"a folder", filepath.Join(dir, "d"), nil, "base", "local", `{"zone":"eu"}`, ""},
		{"the variable", missing, []string{"PATRONI_CONFIGURATION={scope: var, name: v}", "PATRONI_SCOPE=env"}, "var", "v", "", ""},
		{"the file wins over the variable", file, []string{"PATRONI_CONFIGURATION={scope: var}"}, "fromfile", "a", "", ""},
		{"the environment alone", "", []string{"PATRONI_SCOPE=env", "PATRONI_NAME=e"}, "env", "e", "", ""},
		{"nothing", missing, nil, "", "", "", missing + " doesn't exist, and no PATRONI_* variable is set: the configuration is empty"},
		{"an empty file", write("empty.yml", "# nothing\n"), nil, "", "", "", filepath.Join(dir, "empty.yml") + ": the configuration is empty"},
		{"a device", "/dev/null", nil, "", "", "", "read configuration /dev/null: neither a file nor a folder"},
	} {
		got, err := Load(c.path, c.environ)
		if c.err != "" {
			if err == nil || err.Error() != c.err {
				t.Errorf("%s: %v, want %s", c.what, err, c.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.what, err)
			continue
		}
		if got.Scope != c.scope || string(got.Name) != c.name || string(got.Tags.Raw) != c.tags {
			t.Errorf("%s: %s/%s %s, want %s/%s %s", c.what, got.Scope, got.Name, got.Tags.Raw, c.scope, c.name, c.tags)
		}
	}
	// Every file of a folder that can't be read is named, not only the first.
	_, err := Load(filepath.Join(dir, "bad"), nil)
	if err == nil || strings.Count(err.Error(), "\n") != 1 || !strings.Contains(err.Error(), "1.yml:2:1: a tab") || !strings.Contains(err.Error(), "2.yml:1:1: the document is a list") {
		t.Errorf("a folder with two bad files: %v", err)
	}
}

func TestBytesThatAreNotTextAreLocated(t *testing.T) {
	_, err := Parse("f.yml", []byte("scope: a\nname: \"b\xff\"\n"))
	if err == nil || !strings.HasPrefix(err.Error(), "f.yml:2:9: a byte that isn't UTF-8 text") {
		t.Fatalf("got %v", err)
	}
}

func TestAliasBombsAreRefused(t *testing.T) {
	text := "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
	for n := 1; n < 9; n++ {
		text += fmt.Sprintf("a%d: &a%d [%s]\n", n, n, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", n-1), 10), ","))
	}
	_, err := Parse("bomb.yml", []byte(text))
	if err == nil {
		t.Fatal("a billion values were accepted")
	}
}

func TestAliasesAndMergeKeysWork(t *testing.T) {
	c, err := Parse("f.yml", []byte("x: &base {clonefrom: true, zone: a}\ntags:\n  <<: *base\n  zone: b\nscope: &s pg\nname: *s\n"))
	if err != nil {
		t.Fatal(err)
	}
	if string(c.Tags.Raw) != `{"clonefrom":true,"zone":"b"}` || c.Name != "pg" {
		t.Fatalf("tags %s, name %s", c.Tags.Raw, c.Name)
	}
}

func TestTheLineOfAMistakeIsFoundInALongFile(t *testing.T) {
	var b strings.Builder
	for n := range 400 {
		fmt.Fprintf(&b, "key%d: {a: 1,\n  b: [x,\n  y]}\nquoted%d: \"one\n  two\"\n", n, n)
	}
	before := strings.Count(b.String(), "\n")
	b.WriteString("scope: pgsql\n   name: pg01\n")
	for n := range 400 {
		fmt.Fprintf(&b, "more%d: x\n", n)
	}
	began := time.Now()
	_, err := Parse("f.yml", []byte(b.String()))
	want := fmt.Sprintf("f.yml:%d:4: ", before+2)
	if err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Fatalf("got %v, want %s...", err, want)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Fatalf("it took %v", took)
	}
}
