package kv_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/dcs/embedded/kv"
	"github.com/pgregent/regent/events"
)

// log drives a machine the way raft does: encoded commands, entry terms.
type log struct {
	t  testing.TB
	m  *kv.Machine
	at time.Duration // stamp of the next command
	// term of the entries; commands are stamped in it.
	term uint64
}

func newLog(t testing.TB) *log { return &log{t: t, m: kv.New(), term: 1} }

func (l *log) do(c kv.Command) kv.Result {
	l.t.Helper()
	c.V, c.Term, c.Stamp = kv.Version, l.term, int64(l.at)
	return l.raw(l.term, c)
}

func (l *log) raw(term uint64, c kv.Command) kv.Result {
	l.t.Helper()
	data, err := c.Encode()
	if err != nil {
		l.t.Fatal(err)
	}
	return l.m.Apply(term, data)
}

func (l *log) grant(id events.LeaseID, ttl time.Duration) kv.Result {
	return l.do(kv.Command{Op: kv.OpGrant, Lease: id, TTL: ttl, ID: string(id)})
}

func (l *log) put(key, value string, lease events.LeaseID, guards ...dcs.Guard) kv.Result {
	return l.do(kv.TxnCommand(dcs.Txn{Guards: guards, Writes: []dcs.Write{{Key: key, Value: []byte(value), Lease: lease}}}))
}

func (l *log) mustBe(r kv.Result, want kv.Class) {
	l.t.Helper()
	if r.Class != want {
		l.t.Fatalf("result %+v, want %s", r, want)
	}
}

func (l *log) has(key string) bool { _, ok := l.m.Value(key); return ok }

func TestLeaseEndsWhenTheClockReachesItsDeadlineAndNotBefore(t *testing.T) {
	l := newLog(t)
	l.mustBe(l.grant("a", 10), kv.OK)
	l.mustBe(l.put("leader", "n1", "a"), kv.OK)
	l.mustBe(l.put("members/n1", "{}", "a"), kv.OK)
	l.at = 9
	l.mustBe(l.do(kv.Command{Op: kv.OpTick}), kv.OK)
	if !l.has("leader") {
		t.Fatal("the lease ended one nanosecond early")
	}
	before := l.m.Revision()
	l.at = 10
	l.mustBe(l.do(kv.Command{Op: kv.OpTick}), kv.OK)
	if l.has("leader") || l.has("members/n1") {
		t.Fatal("keys outlived their lease")
	}
	if l.m.Revision() != before+1 {
		t.Errorf("the keys of one lease went at revisions %d to %d, want one", before, l.m.Revision())
	}
	l.mustBe(l.do(kv.Command{Op: kv.OpRenew, Lease: "a"}), kv.Refused)
	l.mustBe(l.put("x", "", "a"), kv.Refused)
}

func TestRenewingExtendsAndListsTheKeys(t *testing.T) {
	l := newLog(t)
	l.grant("a", 10)
	l.put("leader", "n1", "a")
	l.put("members/n1", "{}", "a")
	l.at = 9
	r := l.do(kv.Command{Op: kv.OpRenew, Lease: "a"})
	if fmt.Sprint(r.Keys) != "[leader members/n1]" || r.TTL != 10 {
		t.Errorf("renewal: %+v", r)
	}
	l.at = 18
	l.do(kv.Command{Op: kv.OpTick})
	if !l.has("leader") {
		t.Error("the renewed lease ended early")
	}
	if _, at, ok := l.m.NextDeadline(); !ok || at != 19 {
		t.Errorf("next deadline %d, %v; want 19", at, ok)
	}
}

// S13: with a new term the clock restarts, and what remained of a lease carries over.
func TestNewTermCarriesTheRemainingTime(t *testing.T) {
	l := newLog(t)
	l.grant("a", 100)
	l.put("leader", "n1", "a")
	l.at = 70
	l.do(kv.Command{Op: kv.OpTick})
	l.term, l.at = 2, 29
	l.do(kv.Command{Op: kv.OpTick})
	if !l.has("leader") {
		t.Fatal("30 remained; the lease ended at 29 of the new term")
	}
	l.at = 30
	l.do(kv.Command{Op: kv.OpTick})
	if l.has("leader") {
		t.Fatal("30 remained; the lease lives at 30 of the new term")
	}
}

// S13: a leader that lost and regained leadership between stamping and appending.
func TestStampOfAnotherTermIsIgnored(t *testing.T) {
	l := newLog(t)
	l.grant("a", 100)
	l.put("leader", "n1", "a")
	stale := kv.Command{V: kv.Version, Op: kv.OpTick, Term: 1, Stamp: 1000}
	l.mustBe(l.raw(3, stale), kv.OK)
	if !l.has("leader") {
		t.Fatal("a stamp of term 1 moved the clock of term 3")
	}
	stale.Term = 9
	l.mustBe(l.raw(3, stale), kv.OK)
	if !l.has("leader") {
		t.Fatal("a stamp of term 9 moved the clock of term 3")
	}
	stale.Term = 3
	l.mustBe(l.raw(3, stale), kv.OK)
	if l.has("leader") {
		t.Fatal("a stamp of the entry's own term didn't move the clock")
	}
}

func TestGrantIsRepeatableByItsOwnAttemptOnly(t *testing.T) {
	l := newLog(t)
	g := kv.Command{Op: kv.OpGrant, Lease: "a", TTL: 10, ID: "try-1"}
	l.mustBe(l.do(g), kv.OK)
	l.mustBe(l.do(g), kv.OK)
	g.ID = "try-2"
	l.mustBe(l.do(g), kv.Refused)
	l.mustBe(l.do(kv.Command{Op: kv.OpRevoke, Lease: "a"}), kv.OK)
	l.mustBe(l.do(g), kv.OK)
}

func TestTransactionsAreAllOrNothing(t *testing.T) {
	l := newLog(t)
	first := l.put("leader", "n1", "")
	two := dcs.Txn{
		Guards: []dcs.Guard{{Key: "leader", Version: first.Revision}, {Key: "sync", Absent: true}},
		Writes: []dcs.Write{dcs.Put("leader", []byte("n2")), dcs.Put("sync", []byte("{}"))},
	}
	r := l.do(kv.TxnCommand(two))
	l.mustBe(r, kv.OK)
	l.mustBe(l.do(kv.TxnCommand(two)), kv.Refused)
	for _, kvs := range l.m.Content() {
		if kvs.Version != r.Revision {
			t.Errorf("%s has version %d, want the transaction's %d", kvs.Key, kvs.Version, r.Revision)
		}
	}
	got, _ := l.m.Value("leader")
	if got != "n2" {
		t.Errorf("leader is %q", got)
	}
	half := dcs.Txn{Writes: []dcs.Write{dcs.Put("x", nil), {Key: "y", Lease: "gone"}}}
	l.mustBe(l.do(kv.TxnCommand(half)), kv.Refused)
	if l.has("x") {
		t.Error("half a transaction happened")
	}
	binary := "\xff\x00"
	l.put("b", binary, "")
	l.mustBe(l.put("b", "new", "", dcs.ValueIs("b", binary)), kv.OK)
}

func TestUnknownCommandsAreAnsweredAlikeAndChangeNothing(t *testing.T) {
	l := newLog(t)
	l.put("a", "1", "")
	before, _ := l.m.Snapshot()
	for _, data := range []string{
		``, `x`, `{}`, `[]`, `{"v":2,"op":"txn"}`, `{"v":1,"op":"dance"}`, `{"v":1,"op":"grant","ttl":-1,"lease":"x"}`,
		`{"v":1,"op":"grant","ttl":9223372036854775807,"lease":"x"}`, `{"v":1,"op":"txn"}`, `{"v":1,"op":"txn","writes":[{"k":"/"}]}`,
	} {
		if r := l.m.Apply(1, []byte(data)); r.Class != kv.Broken || r.Why == "" {
			t.Errorf("%s: %+v", data, r)
		}
	}
	if after, _ := l.m.Snapshot(); !bytes.Equal(before, after) {
		t.Errorf("state changed:\n%s\n%s", before, after)
	}
}

func drawCommand(t *rapid.T) (term uint64, data []byte) {
	if rapid.IntRange(0, 20).Draw(t, "garbage") == 0 {
		return rapid.Uint64Range(0, 5).Draw(t, "term"), rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")
	}
	key := rapid.SampledFrom([]string{"leader", "sync", "members/a", ""})
	lease := rapid.SampledFrom([]events.LeaseID{"", "l1", "l2"})
	c := kv.Command{
		V:     rapid.SampledFrom([]int{1, 1, 1, 1, 1, 1, 1, 2}).Draw(t, "v"),
		Op:    rapid.SampledFrom([]kv.Op{kv.OpGrant, kv.OpRenew, kv.OpRevoke, kv.OpTxn, kv.OpTxn, kv.OpTick, kv.OpRead, "?"}).Draw(t, "op"),
		Term:  rapid.Uint64Range(0, 5).Draw(t, "stamp term"),
		Stamp: rapid.Int64Range(-5, 100).Draw(t, "stamp"),
		ID:    rapid.SampledFrom([]string{"", "x", "y"}).Draw(t, "id"),
		Lease: lease.Draw(t, "lease"),
		TTL:   time.Duration(rapid.Int64Range(-1, 50).Draw(t, "ttl")),
	}
	for range rapid.IntRange(0, 2).Draw(t, "guards") {
		g := kv.Guard{Key: key.Draw(t, "gkey"), Lease: lease.Draw(t, "glease")}
		switch rapid.IntRange(0, 2).Draw(t, "condition") {
		case 0:
			g.Absent = true
		case 1:
			g.Version = events.Revision(rapid.IntRange(0, 20).Draw(t, "version"))
		default:
			v := []byte(rapid.SampledFrom([]string{"", "1", "2"}).Draw(t, "value"))
			g.Value = &v
		}
		c.Guards = append(c.Guards, g)
	}
	for range rapid.IntRange(0, 3).Draw(t, "writes") {
		c.Writes = append(c.Writes, kv.Write{
			Key: key.Draw(t, "wkey"), Value: []byte(rapid.SampledFrom([]string{"", "1", "2"}).Draw(t, "wvalue")),
			Lease: lease.Draw(t, "wlease"), Delete: rapid.Bool().Draw(t, "delete"),
		})
	}
	data, err := c.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return rapid.Uint64Range(1, 5).Draw(t, "term"), data
}

// Replicas that apply the same entries are the same, also when one of them was
// restored from a snapshot on the way; revisions only grow; a key never outlives
// its lease.
func TestMachinesThatApplyTheSameLogAreEqual(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := kv.New(), kv.New()
		term := uint64(1)
		for range rapid.IntRange(1, 60).Draw(t, "entries") {
			grow, data := drawCommand(t)
			term += grow / 5
			before := a.Revision()
			ra, rb := a.Apply(term, data), b.Apply(term, data)
			ja, _ := json.Marshal(ra)
			jb, _ := json.Marshal(rb)
			if !bytes.Equal(ja, jb) {
				t.Fatalf("results differ:\n%s\n%s", ja, jb)
			}
			if a.Revision() < before {
				t.Fatalf("revision fell from %d to %d", before, a.Revision())
			}
			sa, _ := a.Snapshot()
			sb, _ := b.Snapshot()
			if !bytes.Equal(sa, sb) {
				t.Fatalf("states differ:\n%s\n%s", sa, sb)
			}
			if rapid.IntRange(0, 9).Draw(t, "restore") == 0 {
				b = kv.New()
				if err := b.Restore(sa); err != nil {
					t.Fatal(err)
				}
			}
			if rapid.IntRange(0, 9).Draw(t, "clone") == 0 {
				a = a.Clone()
			}
		}
	})
}

func TestRestoreRefusesWhatItDoesNotKnowAndKeepsItsState(t *testing.T) {
	l := newLog(t)
	l.put("a", "1", "")
	for _, bad := range []string{``, `{}`, `{"v":2}`, `[]`} {
		if err := l.m.Restore([]byte(bad)); err == nil {
			t.Errorf("restore %q: no error", bad)
		}
	}
	if !l.has("a") {
		t.Error("a failed restore lost the state")
	}
}

func FuzzApplyNeverPanics(f *testing.F) {
	f.Add(uint64(1), []byte(`{"v":1,"op":"grant","lease":"a","ttl":5,"term":1,"stamp":3}`))
	f.Add(uint64(2), []byte(`{"v":1,"op":"txn","writes":[{"k":"a","val":"eA=="}]}`))
	f.Fuzz(func(t *testing.T, term uint64, data []byte) {
		m := kv.New()
		for range 3 {
			m.Apply(term, data)
		}
		s, err := m.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		if err := kv.New().Restore(s); err != nil {
			t.Fatal(err)
		}
	})
}
