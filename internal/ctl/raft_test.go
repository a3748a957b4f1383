package ctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/dcs/embedded"
)

// voters is a store whose members are given.
type voters struct {
	dcs.Store
	members []embedded.Member
	err     error
	asked   string
}

func (v *voters) Members(context.Context) ([]embedded.Member, error) { return v.members, v.err }

func (v *voters) AddMember(_ context.Context, addr string, voter bool) (embedded.Server, error) {
	v.asked = fmt.Sprintf("add %s %v", addr, voter)
	return embedded.Server{ID: "witness-2", Name: "witness", Addr: addr, Voter: voter}, v.err
}

func (v *voters) RemoveMember(_ context.Context, which string, force bool) (embedded.Server, error) {
	v.asked = fmt.Sprintf("remove %s %v", which, force)
	return embedded.Server{ID: which + "-1", Name: which, Addr: "10.0.0.3:2222"}, v.err
}

// raft runs one command and returns what it printed, and its exit code.
func (w *world) raft(store dcs.Store, answers string, args ...string) (string, int) {
	w.t.Helper()
	var out bytes.Buffer
	env := w.env(strings.NewReader(answers), &out, &out)
	env.Open = func(context.Context, StoreAddress) (dcs.Store, error) { return store, nil }
	code := execute(w.t.Context(), env, append([]string{"raft"}, args...))
	return strings.ReplaceAll(out.String(), w.dir, "DIR"), code
}

// Close keeps the store for the next command.
func (*voters) Close() error { return nil }

func TestTheStoresMembersAreListedAndChanged(t *testing.T) {
	w := newWorld(t)
	server := func(name, addr string, voter bool) embedded.Server {
		return embedded.Server{ID: name + "-0f3e7b1c-0001", Name: name, Addr: addr, Voter: voter}
	}
	v := &voters{members: []embedded.Member{
		{Server: server("witness", "10.0.0.3:2222", true), Error: errors.New("dial 10.0.0.3:2222: connection refused")},
		{Server: server("pg01", "10.0.0.1:2222", true), Status: &embedded.Status{Role: embedded.RoleLeader, Term: 7, Applied: 1234, Age: 12 * time.Millisecond}},
		{Server: server("pg02", "10.0.0.2:2222", true), Status: &embedded.Status{Role: embedded.RoleVoter, Term: 7, Applied: 1233, Age: 132 * time.Millisecond, Write: 180 * time.Millisecond, Slow: true}},
		{Server: server("pg03", "10.0.0.4:2222", false), Status: &embedded.Status{Role: embedded.RoleNonVoter, Term: 7, Applied: 1230, Age: -1}},
	}}
	got, code := w.raft(v, "", "member", "list")
	want := `+ Raft: demo -------------+---------------+-----------+----------------+------+-------+-------+
| Member  | Id            | Address       | Role      | State          | Term | Entry |   Age |
+---------+---------------+---------------+-----------+----------------+------+-------+-------+
| pg01    | 0f3e7b1c-0001 | 10.0.0.1:2222 | leader    | running        |    7 |  1234 |       |
| pg02    | 0f3e7b1c-0001 | 10.0.0.2:2222 | voter     | slow disk      |    7 |  1233 | 132ms |
| pg03    | 0f3e7b1c-0001 | 10.0.0.4:2222 | non-voter | running        |    7 |  1230 |       |
| witness | 0f3e7b1c-0001 | 10.0.0.3:2222 | voter     | doesn't answer |      |       |       |
+---------+---------------+---------------+-----------+----------------+------+-------+-------+
 2 of 3 voters answer, 2 are needed: the store works
 witness: dial 10.0.0.3:2222: connection refused
`
	if got != want || code != 0 {
		t.Errorf("exit %d:\n%s", code, got)
	}
	v.members[1].Status = nil // the command sorted them
	if got, _ := w.raft(v, "", "member", "list"); !strings.Contains(got, "1 of 3 voters answer, 2 are needed: the store stands still") {
		t.Errorf("with one voter:\n%s", got)
	}
	for _, c := range []struct{ args, asked, told string }{
		{"add 10.0.0.3:2222", "add 10.0.0.3:2222 true", "witness at 10.0.0.3:2222 is a member of the store and has a vote (id witness-2)"},
		{"add --non-voter 10.0.0.3:2222", "add 10.0.0.3:2222 false", "follows without a vote"},
		{"remove pg03", "remove pg03 false", "pg03 at 10.0.0.3:2222 is no member of the store any more (id pg03-1)"},
		{"remove --force pg03", "remove pg03 true", "no member"},
	} {
		got, code := w.raft(v, "", append([]string{"member"}, strings.Fields(c.args)...)...)
		if code != 0 || v.asked != c.asked || !strings.Contains(got, c.told) {
			t.Errorf("%s: exit %d, asked %q, told %s", c.args, code, v.asked, got)
		}
	}
	v.err = fmt.Errorf("add: %w: the connection ended", dcs.ErrUnknown)
	if got, code := w.raft(v, "", "member", "add", "10.0.0.3:2222"); code != 1 || !strings.Contains(got, "It may have happened") {
		t.Errorf("an unknown outcome: exit %d, %s", code, got)
	}
	if got, code := w.raft(kept{w.seen}, "", "member", "list"); code != 1 || !strings.Contains(got, "isn't the embedded one") {
		t.Errorf("another store: exit %d, %s", code, got)
	}
	if got, code := w.raft(v, "", "member", "remove"); code != 2 || !strings.Contains(got, "Missing argument 'MEMBER'") {
		t.Errorf("no argument: exit %d, %s", code, got)
	}
}

// The way out of a lost quorum says what may be lost, and changes nothing without the
// cluster's name.
func TestRecoveryAsksForTheClustersName(t *testing.T) {
	w := newWorld(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(w.dir, "raft")
	w.write(fmt.Sprintf("scope: demo\nname: pg01\nraft: {self_addr: '%s', data_dir: %s}\n", addr, dir))
	if got, code := w.raft(nil, "", "recover"); code != 1 || !strings.Contains(got, "no such file") {
		t.Errorf("without a folder: exit %d, %s", code, got)
	}
	store, err := embedded.Open(t.Context(), embedded.Config{Name: "pg01", SelfAddr: addr, DataDir: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := store.Commit(ctx, dcs.Txn{Writes: []dcs.Write{dcs.Put("leader", []byte("pg01"))}}); err != nil {
		t.Fatal(err)
	}
	if got, code := w.raft(nil, "demo\n", "recover"); code != 1 || !strings.Contains(got, "stop it") {
		t.Errorf("with a running agent: exit %d, %s", code, got)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	got, code := w.raft(nil, "yes\n", "recover")
	for _, text := range []string{"revision 1, 1 keys; leader: pg01", "two primaries", "is forgotten", "Type the cluster's name", "Nothing was changed", "Aborted!"} {
		if !strings.Contains(got, text) {
			t.Errorf("the question lacks %q:\n%s", text, got)
		}
	}
	before, err := embedded.Inspect(dir, "pg01")
	if err != nil || code != 1 {
		t.Fatal(code, err)
	}
	if got, code := w.raft(nil, "demo\n", "recover"); code != 0 || !strings.Contains(got, "This node is the store now") {
		t.Errorf("exit %d:\n%s", code, got)
	}
	after, err := embedded.Inspect(dir, "pg01")
	if err != nil || after.ID == before.ID || after.Revision != before.Revision {
		t.Errorf("recovered %+v from %+v, %v", after, before, err)
	}
}
