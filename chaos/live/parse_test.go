package live

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgregent/regent/internal/sandbox"
)

const header = "row 1\nwhere here\nscenario this\naction that\nasserts so\n"

func TestScriptIsReadAsItIsWritten(t *testing.T) {
	s, err := Parse("x", header+`
settings  synchronous_mode=true primary_start_timeout=3
stores    consul raft
fencing   off

# a comment
do        set a trap when replica logs "race won" kill agent of other
on raft do kill node of primary
wait for  replica is primary     within 2ttl+500ms
expect    primary is not primary for ttl
expect    outage at most ttl+1s
allow     lost rows
`)
	if err != nil {
		t.Fatal(err)
	}
	if s.Fencing != "off" || !s.Synchronous() || !slices.Equal(s.Stores, []sandbox.StoreKind{"consul", "raft"}) || len(s.Steps) != 6 {
		t.Errorf("%+v", s)
	}
	if got := s.Steps[0].args; !slices.Equal(got, []string{"replica", "race won", "agent", "other"}) {
		t.Errorf("arguments %q", got)
	}
	if got := s.Steps[1].On; !slices.Equal(got, []sandbox.StoreKind{"raft"}) {
		t.Errorf("on %v", got)
	}
	if got := s.Steps[2].Within.Of(2 * time.Second); got != 4500*time.Millisecond {
		t.Errorf("2ttl+500ms is %s at a ttl of 2 s", got)
	}
	if got := s.Steps[3].For.Of(20 * time.Second); got != 20*time.Second || s.Steps[3].Line != 15 {
		t.Errorf("for %s, line %d", got, s.Steps[3].Line)
	}
}

// TestWhatIsWrongIsNamedWithItsLine: the text is part of the contract, a DBA reads it.
func TestWhatIsWrongIsNamedWithItsLine(t *testing.T) {
	const good = "do kill agent of primary\nexpect lost rows at most 0\n"
	for _, c := range []struct{ text, want string }{
		{header + "do kil agent of primary\n" + good, `x.txt:6: "do kil agent of primary" is no step`},
		{header + "do kill agent from primary\n" + good, `x.txt:6: "do kill agent from primary" is no step; the nearest is: do kill PART of NODE`},
		{header + "do kill agent of secondary\n" + good, `x.txt:6: do kill PART of NODE: "secondary" is none of primary, replica, other, leader`},
		{header + "do kill agent of\n" + good, `x.txt:6: "do kill agent of" is no step; the nearest is: do kill PART of NODE`},
		{header + "do kill agent of primary now\n" + good, `x.txt:6: "do kill agent of primary now" is no step; the nearest is: do kill PART of NODE`},
		{header + "do replica is primary\n" + good, `x.txt:6: "do replica is primary" is no step`},
		{header + "wait for replica is primary\n" + good, `x.txt:6: a wait needs its deadline: within 10s`},
		{header + "wait for replica is primary within soon\n" + good, `x.txt:6: "soon" is no length of time; write 300ms, 2s, ttl, 2ttl or ttl+5s`},
		{header + "wait for replica is primary within -1s\n" + good, `x.txt:6: "-1s" is no length of time; write 300ms, 2s, ttl, 2ttl or ttl+5s`},
		{header + "wait for replica is primary within 0ttl\n" + good, `x.txt:6: "0ttl" is no length of time: "0" doesn't count ttls`},
		{header + "wait for replica is primary for 1s within 2s\n" + good, `x.txt:6: "for" says how long a condition is expected to hold; there is none here`},
		{header + "expect replica is primary within 2s\n" + good, `x.txt:6: what is expected holds now, or for a time; use "wait for" for what may take until a deadline`},
		{header + "expect outage at most 1s for 2s\n" + good, `x.txt:6: "for" says how long a condition is expected to hold; there is none here`},
		{header + "expect outage at most 7\n" + good, `x.txt:6: expect outage at most SPAN: "7" is no length of time; write 300ms, 2s, ttl, 2ttl or ttl+5s`},
		{header + "expect lost rows at most many\n" + good, `x.txt:6: expect lost rows at most COUNT: "many" is no whole number`},
		{header + "on zookeeper do kill agent of primary\n" + good, `x.txt:6: "zookeeper" is no store; there are [raft etcd3 consul]`},
		{header + "expect log of primary says \"half\n" + good, `x.txt:6: a quotation mark isn't closed`},
		{header + "try to kill it\n" + good, `x.txt:6: "try to kill it" begins with none of: do, wait for, expect, allow, or a word of the header`},
		{header + "row 2\n" + good, `x.txt:6: "row" was said in line 1`},
		{header + "fencing maybe\n" + good, `x.txt:6: fencing is keeper or off, not "maybe"`},
		{header + "settings ttl\n" + good, `x.txt:6: "ttl" isn't NAME=VALUE`},
		{header + "stores raft raft\n" + good, `x.txt:6: raft is named twice`},
		{header + "故障位置 主库\n" + good, `x.txt:10: the document's row has three cells: 故障位置, 场景, 动作`},
		{header + good + "stores raft\n", `x.txt:8: "stores" belongs above the first step`},
		{header + "do kill agent of primary\n", `x.txt:8: nothing is expected: such a row can't fail`},
		{header + "expect lost rows at most 0\n", `x.txt:8: nothing is done`},
		{"row 1\n" + good, `x.txt:5: the header lacks "where"`},
		{header + "settings\n" + good, `x.txt:6: "settings" says nothing`},
	} {
		_, err := Parse("x", c.text)
		if err == nil || !slices.Contains(strings.Split(err.Error(), "\n"), c.want) {
			t.Errorf("%q\n gives %v\n want  %s", c.text, err, c.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	scripts, err := files.ReadDir("scenarios")
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range scripts {
		text, err := files.ReadFile("scenarios/" + s.Name())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Add(`on`)
	f.Add("do \"\"\non raft")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse("x", text)
		if err == nil && (s.Row == "" || len(s.Steps) == 0) {
			t.Errorf("an empty script was accepted: %+v", s)
		}
	})
}

func TestEveryVerbCanBeWrittenAndDoesOneThing(t *testing.T) {
	example := map[string]string{
		"NODE": "replica", "PART": "agent", "ROLE": "primary", "STORE": "peers", "SHARE": "majority", "SPAN": "2ttl+1s",
		"COUNT": "3", "NAME=VALUE": "ttl=5", "PATH": "/replica", "TEXT": `"some words"`,
	}
	seen := map[string]bool{}
	for _, v := range Verbs() {
		does := 0
		for _, has := range []bool{v.do != nil, v.holds != nil, v.bound != nil, v.allow != nil} {
			if has {
				does++
			}
		}
		if does != 1 || v.Doc == "" {
			t.Errorf("%q does %d things, and its contract is %q", v.Form, does, v.Doc)
		}
		for _, k := range v.Kinds {
			words := strings.Fields(v.Form)
			for i, w := range words {
				if argument(w) != nil {
					words[i] = example[w]
				}
			}
			line, err := split(strings.Join(words, " "))
			if err != nil {
				t.Fatal(err)
			}
			found, _, err := match(k, line)
			if err != nil || found.Form != v.Form {
				t.Errorf("%s %s is read as %v (%v)", k, strings.Join(words, " "), found, err)
			}
			if seen[string(k)+v.Form] {
				t.Errorf("%s %s is there twice", k, v.Form)
			}
			seen[string(k)+v.Form] = true
		}
	}
}

// TestTheDocumentsRowsAreThere: each of them, in the document's words, on every store.
func TestTheDocumentsRowsAreThere(t *testing.T) {
	scripts, err := Scripts()
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []string{"1", "2", "3", "4", "5", "6a", "6b", "6c", "7", "8", "9", "10", "11", "12"} {
		stores := map[sandbox.StoreKind]bool{}
		for _, s := range scripts {
			if s.Row != row {
				continue
			}
			if row != "12" && s.Chinese == (Text{}) {
				t.Errorf("%s lacks the document's cells", s.Name)
			}
			for _, k := range s.Stores {
				stores[k] = true
			}
		}
		if len(stores) != len(sandbox.StoreKinds()) {
			t.Errorf("row %s is replayed on %v only", row, stores)
		}
	}
	if !slices.ContainsFunc(scripts, func(s *Script) bool { return s.Row == "8" && s.Fencing == "off" }) {
		t.Error("row 8 lacks its script without fencing")
	}
}

// TestARotationTouchesEveryRowAndEveryStore, and as many rotations as there are turns touch every pair.
func TestARotationTouchesEveryRowAndEveryStore(t *testing.T) {
	scripts, err := Scripts()
	if err != nil {
		t.Fatal(err)
	}
	pairs := map[pair]bool{}
	for rotation := range 3 * len(share) {
		rows, stores := map[string]int{}, map[sandbox.StoreKind]bool{}
		for _, p := range (Options{Rotate: true, Rotation: rotation}).plan(scripts) {
			rows[p.script.Name]++
			stores[p.key.store] = true
			pairs[p] = true
		}
		for _, s := range scripts {
			if rows[s.Name] != 1 {
				t.Errorf("rotation %d: %s is replayed %d times", rotation, s.Name, rows[s.Name])
			}
		}
		if len(stores) != len(sandbox.StoreKinds()) {
			t.Errorf("rotation %d: only %v", rotation, stores)
		}
	}
	for _, p := range (Options{}).plan(scripts) {
		if !pairs[p] {
			t.Errorf("%s on %s is in no rotation", p.script.Name, p.key.store)
		}
	}
}
