package api

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/events/journal"
	"github.com/pgregent/regent/fsm"
	"github.com/pgregent/regent/internal/ctl/story"
	"github.com/pgregent/regent/internal/replay"
)

// withJournal gives the member a journal of a machine that is stepped by diarist.step.
func (w *world) withJournal() *diarist {
	w.t.Helper()
	d := &diarist{w: w, m: fsm.New()}
	j, _, err := journal.Open(w.t.TempDir(), journal.Options{Snapshot: func() json.RawMessage {
		b, err := json.Marshal(replay.Snapshot{Schema: fsm.StateSchema, Table: fsm.TableHash(), Binary: "test", State: d.state})
		if err != nil {
			w.t.Error(err)
		}
		return b
	}})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := j.Run(ctx); err != nil {
			w.t.Error(err)
		}
	})
	w.t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	w.opt.Journal, d.j = j, j
	return d
}

// diarist journals as the agent's loop does.
type diarist struct {
	w     *world
	j     *journal.Journal
	m     *fsm.Machine
	state fsm.State
}

// step journals a fact at a second of a minute before now, and its decision.
func (d *diarist) step(second int, ev events.Event) fsm.Decision {
	d.w.t.Helper()
	wall := nowWall().Add(time.Duration(second-60) * time.Second)
	payload, err := events.Marshal(ev)
	if err != nil {
		d.w.t.Fatal(err)
	}
	at := events.Instant(wall.UnixNano())
	seq, err := d.j.Append(journal.Record{Kind: string(ev.Kind()), At: at, Wall: wall.UnixNano(), Payload: payload})
	if err != nil {
		d.w.t.Fatal(err)
	}
	var decision fsm.Decision
	d.state, decision = d.m.Step(d.state, events.Entry{Seq: seq, At: at, Wall: wall.UnixNano(), Event: ev})
	derived, err := fsm.Derive(d.state, decision)
	if err != nil {
		d.w.t.Fatal(err)
	}
	if payload, err = json.Marshal(derived); err != nil {
		d.w.t.Fatal(err)
	}
	if _, err := d.j.Append(journal.Record{Kind: replay.KindDecision, At: at, Wall: wall.UnixNano(), Derived: true, Payload: payload}); err != nil {
		d.w.t.Fatal(err)
	}
	return decision
}

func (d *diarist) start() {
	d.step(0, events.AgentStarted{Node: "pg00", Scope: "demo", Version: "0.1.0", Boot: "b", Settings: events.Settings{
		TTL: 30 * time.Second, LoopWait: 10 * time.Second, RetryTimeout: 10 * time.Second,
	}})
}

func (d *diarist) sync() {
	d.w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := d.j.Sync(ctx); err != nil {
		d.w.t.Fatal(err)
	}
}

// listener reads server-sent events.
type listener struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Scanner
}

func (w *world) listen(path string, headers ...string) *listener {
	w.t.Helper()
	conn, err := net.Dial("tcp", w.server.Addr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		w.t.Fatal(err)
	}
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\n%s\r\n", path, strings.Join(append(headers, ""), "\r\n")); err != nil {
		w.t.Fatal(err)
	}
	l := &listener{t: w.t, conn: conn, in: bufio.NewScanner(conn)}
	l.in.Buffer(nil, 8<<20)
	return l
}

// next is the next event: its id, its kind and its data.
func (l *listener) next() (id, kind string, data told) {
	l.t.Helper()
	if err := l.conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		l.t.Fatal(err)
	}
	for l.in.Scan() {
		name, value, _ := strings.Cut(l.in.Text(), ": ")
		switch name {
		case "id":
			id = value
		case "event":
			kind = value
		case "data":
			if err := json.Unmarshal([]byte(value), &data); err != nil {
				l.t.Fatalf("%v: %s", err, value)
			}
			return id, kind, data
		}
	}
	l.t.Fatalf("the stream ended: %v", l.in.Err())
	return "", "", told{}
}

// begun returns when the stream is under way.
func (l *listener) begun() {
	l.t.Helper()
	for l.in.Scan() {
		if strings.HasPrefix(l.in.Text(), ": events of") {
			return
		}
	}
	l.t.Fatalf("the stream did not begin: %v", l.in.Err())
}

func TestEventsAreStreamedWithTheirReasons(t *testing.T) {
	w := newWorld(t)
	d := w.withJournal()
	w.run()
	d.start()
	l := w.listen("/events")
	l.begun()
	want := d.step(1, events.KeeperFound{PID: 7})
	id, kind, data := l.next()
	if id != "4" || kind != "KeeperFound" || data.Seq != 3 || data.Fact != "found the keeper, PostgreSQL runs (pid 7)" ||
		data.Decision == nil || data.Decision.Rule != want.Reason.Rule || data.Decision.Text != want.Reason.Text || !data.Time.Equal(nowWall().Add(-59*time.Second)) {
		t.Errorf("%s %s %+v", id, kind, data)
	}
	d.step(2, events.Tick{})
	if id, kind, _ := l.next(); id != "6" || kind != "Tick" {
		t.Errorf("%s %s", id, kind)
	}
}

func TestAStreamGoesOnWhereItWasLeft(t *testing.T) {
	w := newWorld(t)
	d := w.withJournal()
	w.run()
	d.start()
	for n := range 2000 { // more than the memory has
		d.step(1, events.KeeperFound{PID: n + 1})
	}
	d.sync()
	l := w.listen("/events", "Last-Event-ID: 100")
	for n := 100; n < 4002; n += 2 {
		if id, kind, data := l.next(); id != fmt.Sprint(n+2) || kind != "KeeperFound" || data.Seq != uint64(n+1) || data.Decision == nil {
			t.Fatalf("after %d: %s %s %+v", n, id, kind, data)
		}
	}
	d.step(2, events.Tick{})
	if id, kind, _ := l.next(); id != "4004" || kind != "Tick" {
		t.Errorf("%s %s", id, kind)
	}
	late := w.listen("/events?after=999999")
	if id, kind, _ := late.next(); id != "" || kind != "lost" {
		t.Errorf("of a number that was never given: %s %s", id, kind)
	}
	d.step(3, events.Tick{})
	if id, kind, _ := late.next(); id != "4006" || kind != "Tick" {
		t.Errorf("%s %s", id, kind)
	}
	if status, _ := w.send("GET", "/events", "", "Last-Event-ID: x"); status != "400 Bad Request" {
		t.Error(status)
	}
}

// A client that reads nothing costs a connection for a while, and nobody waits for it.
func TestASlowClientOfTheEventsIsDropped(t *testing.T) {
	w := newWorld(t)
	d := w.withJournal()
	w.run()
	d.start()
	slow := w.listen("/events?after=0")
	slow.begun()
	if err := slow.conn.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil { // so that little fits into the kernel
		t.Fatal(err)
	}
	quick := w.listen("/events")
	quick.begun()
	big := strings.Repeat("x", 1<<20)
	for n := range 12 {
		began := time.Now()
		d.step(1, events.ShutdownRequested{By: big})
		if took := time.Since(began); took > 5*time.Second {
			t.Fatalf("a step took %s with a client that doesn't read", took)
		}
		if _, kind, _ := quick.next(); kind != "ShutdownRequested" {
			t.Fatalf("event %d is %s", n, kind)
		}
	}
	deadline := time.Now().Add(writeWithin + 20*time.Second)
	for len(w.server.following) > 1 {
		if time.Now().After(deadline) {
			t.Fatal("the slow client is still there")
		}
		pause(t.Context(), 10*time.Millisecond)
	}
}

func TestFollowersAreBounded(t *testing.T) {
	w := newWorld(t)
	w.withJournal().start()
	stop := w.run()
	for range maxFollowers {
		w.listen("/events").begun()
	}
	if status, body := w.send("GET", "/events", ""); status != "503 Service Unavailable" || !strings.Contains(body, "16 clients") {
		t.Errorf("%s: %s", status, body)
	}
	if status, _ := w.send("GET", "/patroni", ""); status != "200 OK" {
		t.Errorf("%s: those who follow keep others out", status)
	}
	began := time.Now()
	if err := stop(); err != nil || time.Since(began) > 10*time.Second {
		t.Errorf("%v after %s: those who follow hold the server", err, time.Since(began))
	}
}

func TestWhyOverREST(t *testing.T) {
	w := newWorld(t)
	d := w.withJournal()
	var last fsm.Decision
	under := fsm.Stretch{}
	w.opt.Quiet = func() (fsm.Stretch, time.Time) { return under, nowWall() }
	w.run()
	d.start()
	d.step(1, events.KeeperFound{PID: 7})
	last = d.step(10, events.Tick{})
	d.sync()
	w.agent.change(func(s *fsm.State) { *s = d.state })
	ask := func(path string) (a story.Answer) {
		t.Helper()
		status, body := w.send("GET", path, "")
		if err := json.Unmarshal([]byte(body), &a); err != nil || status != "200 OK" {
			t.Fatalf("%s: %v: %s", status, err, body)
		}
		return a
	}
	a := ask("/why")
	if !a.Known || !a.Now || a.Member != "pg00" || a.Rule != last.Reason.Rule || a.Reason != last.Reason.Text || len(a.Rejected) != len(last.Reason.Rejected) ||
		len(a.Rejected) == 0 || a.Fact == nil || a.Confirmed != nil {
		t.Errorf("%+v", a)
	}
	under = fsm.Stretch{Count: 412, Since: nowWall().Add(-40 * time.Second).UnixNano(), Kinds: map[events.Kind]int{events.KindTick: 412}}
	a = ask("/why")
	if text := a.Text(time.UTC); !strings.Contains(text, "still    the same since 2026-11-22 22:59:20.000, last confirmed 2026-11-22 23:00:00.000, by 412 facts (412 heartbeats)") ||
		!strings.Contains(text, "As of 2026-11-22 23:00:00.000 pg00 is init") {
		t.Error(text)
	}
	if a = ask("/why?at=" + nowWall().Add(-59500*time.Millisecond).Format(time.RFC3339Nano)); a.Now || a.Seq != 1 || a.Fact == nil || a.Fact.Seq != 1 || a.Confirmed != nil {
		t.Errorf("%+v", a)
	}
	if a = ask(fmt.Sprint("/why?at=", nowWall().Unix()-20)); a.Now || a.Confirmed == nil || a.Confirmed.Count != 412 {
		t.Errorf("in the stretch under way: %+v", a)
	}
	if a = ask(fmt.Sprint("/why?at=", nowWall().Unix()-3600)); a.Known {
		t.Errorf("%+v", a)
	}
	if status, _ := w.send("GET", "/why?at=yesterday", ""); status != "400 Bad Request" {
		t.Error(status)
	}
}

func TestWithoutAJournalThereAreNoReasons(t *testing.T) {
	w := newWorld(t)
	w.run()
	for _, path := range []string{"/why", "/events"} {
		if status, _ := w.send("GET", path, ""); status != "503 Service Unavailable" {
			t.Errorf("%s: %s", path, status)
		}
	}
}
