package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgregent/regent/events"
)

// TestConcurrentClientsShareObservations: everybody gets a whole answer, and
// PostgreSQL is not asked by each of them.
func TestConcurrentClientsShareObservations(t *testing.T) {
	w := newWorld(t)
	w.opt.MaxConnections = 200 // with fewer, one that is slow to ask makes room for others
	w.run()
	threeMembers(w)
	paths := []string{"/patroni", "/primary", "/replica", "/cluster", "/config", "/liveness"}
	var clients sync.WaitGroup
	for i := range 200 {
		clients.Go(func() {
			path := paths[i%len(paths)]
			status, body := w.send("GET", path, "")
			want := map[string]string{"/replica": "503 Service Unavailable"}[path]
			if want == "" {
				want = "200 OK"
			}
			if status != want || (path != "/liveness" && !strings.HasSuffix(body, "}")) {
				t.Errorf("%s: %s %q", path, status, body)
			}
		})
	}
	clients.Wait()
	// 34 clients ask for each of /patroni and /primary, 33 for /replica. At worst, on a slow
	// machine, they come one after another.
	if n := w.agent.observed; n == 0 || n > 34+34+33 {
		t.Errorf("%d observations for 101 questions", n)
	}
}

// TestSilentClientsMakeRoom: those who connect and say nothing can't keep out those
// who ask, even when they take all places.
func TestSilentClientsMakeRoom(t *testing.T) {
	w := newWorld(t)
	w.opt.MaxConnections = 3
	w.run()
	var silent []net.Conn
	for range 12 {
		conn, err := net.Dial("tcp", w.server.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "GET /primary HT"); err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
			t.Fatal(err)
		}
		silent = append(silent, conn)
	}
	for range 5 {
		if status, _ := w.send("GET", "/primary", ""); status != "200 OK" {
			t.Errorf("status %q", status)
		}
	}
	// The first of them was let go without a word.
	if err := silent[0].SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, err := silent[0].Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the oldest silent client: %d bytes, %v", n, err)
	}
}

// TestSlowClientIsGivenUp: however steadily it drips.
func TestSlowClientIsGivenUp(t *testing.T) {
	bubble(t, func(w *world) {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		c := w.server.conns.admit(w.t.Context(), ours)
		began := time.Now()
		served := make(chan time.Duration, 1)
		go func() {
			w.server.serve(w.t.Context(), c)
			served <- time.Since(began)
		}()
		var err error
		for _, b := range []byte("GET /primary HTTP/1.1\r\nX-Slow: 1\r\n\r\n") {
			pause(w.t.Context(), time.Second)
			if _, err = theirs.Write([]byte{b}); err != nil {
				break
			}
		}
		if took := <-served; took != headWithin || err == nil {
			w.t.Errorf("served for %v, %v", took, err)
		}
	})
}

// TestSlowBodyIsGivenUp: a client that may change something, and never says what.
func TestSlowBodyIsGivenUp(t *testing.T) {
	bubble(t, func(w *world) {
		ours, theirs := net.Pipe()
		c := w.server.conns.admit(w.t.Context(), ours)
		done := make(chan struct{})
		began := time.Now()
		go func() { defer close(done); w.server.serve(w.t.Context(), c) }()
		if _, err := io.WriteString(theirs, "PATCH /config HTTP/1.1\r\nContent-Length: 10\r\n\r\n{"); err != nil {
			w.t.Fatal(err)
		}
		answer, err := io.ReadAll(theirs)
		<-done
		theirs.Close()
		if took := time.Since(began); took != bodyWithin || err != nil || !strings.HasPrefix(string(answer), "HTTP/1.0 400 Bad Request\r\n") {
			w.t.Errorf("after %v: %q, %v", took, answer, err)
		}
	})
}

// TestOrdinaryClientsUnderstand: the members ask each other with Go's client, and it
// wants more than bytes that look right.
func TestOrdinaryClientsUnderstand(t *testing.T) {
	w := newWorld(t)
	w.run()
	threeMembers(w)
	client := &http.Client{Timeout: 30 * time.Second}
	defer client.CloseIdleConnections()
	base := "http://" + w.server.Addr().String()
	for _, c := range []struct{ method, path, body, want string }{
		{"GET", "/patroni", "", `"location": 117440840`},
		{"HEAD", "/primary", "", ""},
		{"OPTIONS", "/primary", "", ""},
		{"GET", "/liveness", "", ""},
		{"PATCH", "/config", `{"note":"` + strings.Repeat("x", 100<<10) + `"}`, `"note": "xxx`},
	} {
		req, err := http.NewRequestWithContext(t.Context(), c.method, base+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatalf("%s %s: %v", c.method, c.path, err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != 200 || !strings.Contains(string(body), c.want) {
			t.Errorf("%s %s: %s %.200s, %v", c.method, c.path, resp.Status, body, err)
		}
	}
}

func TestMalformedRequests(t *testing.T) {
	w := newWorld(t)
	w.run()
	for raw, want := range map[string]string{
		"nonsense\r\n\r\n":                                                         "400 Bad Request",
		"GET /primary\r\n\r\n":                                                     "400 Bad Request",
		"GET /primary HTTP/9.x\r\n\r\n":                                            "400 Bad Request",
		"GET /primary HTTP/1.1\r\nno colon\r\n\r\n":                                "400 Bad Request",
		"PATCH /config HTTP/1.1\r\nContent-Length: x\r\n\r\n{}":                    "400 Bad Request",
		"PATCH /config HTTP/1.1\r\nContent-Length: -1\r\n\r\n{}":                   "400 Bad Request",
		"GET /primary HTTP/1.1\r\nX: " + strings.Repeat("x", maxHead) + "\r\n\r\n": "431 Request Header Fields Too Large",
		"GET /primary?%zz=1&lag=%zz HTTP/1.1\r\n\r\n":                              "200 OK",
		"GET /primary HTTP/1.1\nHost: x\n\n":                                       "200 OK",
	} {
		if status, _ := split(w.say(raw)); status != want {
			t.Errorf("%.40q: %q, want %q", raw, status, want)
		}
	}
	// Somebody who connects and goes away is answered with nothing.
	conn, err := net.Dial("tcp", w.server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(conn); len(b) > 0 || err != nil {
		t.Errorf("answered %q, %v", b, err)
	}
	conn.Close()
}

// TestRefusedBodyDoesNotCostTheAnswer: closing with unread bytes would reset the
// connection before the client has read why.
func TestRefusedBodyDoesNotCostTheAnswer(t *testing.T) {
	w := newWorld(t)
	w.opt.Settings.Auth = basicAuth()
	w.run()
	body := strings.Repeat("x", 200<<10)
	for range 20 {
		if status, text := w.send("PATCH", "/config", body); status != "401 Unauthorized" || text != "no auth header received" {
			t.Fatalf("%q %q", status, text)
		}
	}
}

// TestBrokenHandlerCostsItsClientOnly: a primary depends on the agent.
func TestBrokenHandlerCostsItsClientOnly(t *testing.T) {
	w := newWorld(t)
	w.opt.CheckConfig = func([]byte) error { panic("a defect") }
	w.run()
	threeMembers(w)
	if status, _ := w.send("PATCH", "/config", `{"ttl":20}`); status != "500 Internal Server Error" {
		t.Errorf("status %q", status)
	}
	if status, _ := w.send("GET", "/primary", ""); status != "200 OK" {
		t.Errorf("status %q after it", status)
	}
}

func TestAddressInUseIsAnErrorAtStart(t *testing.T) {
	w := newWorld(t)
	w.run()
	w.opt.Settings.Listen = w.server.Addr().String()
	_, err := New(w.opt)
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "another program listens on "+w.opt.Settings.Listen) {
		t.Errorf("error %v", err)
	}
	for _, bad := range []string{"", "localhost", "localhost:none"} {
		w.opt.Settings.Listen = bad
		if _, err := New(w.opt); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

func TestStarListensEverywhere(t *testing.T) {
	w := newWorld(t)
	w.opt.Settings.Listen = "*:0"
	w.run()
	_, port, err := net.SplitHostPort(w.server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", port))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := converse(t, conn, "HEAD /primary HTTP/1.0\r\n\r\n"); got != "HTTP/1.0 200 OK\r\n\r\n" {
		t.Errorf("%q", got)
	}
}

// TestReloadMovesTheListener: the new address answers, the old one doesn't; a bad one
// changes nothing.
func TestReloadMovesTheListener(t *testing.T) {
	w := newWorld(t)
	w.run()
	old := w.server.Addr().String()
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	set := w.opt.Settings
	set.Listen = other.Addr().String()
	if err := w.server.Reload(set); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("reload to an address in use: %v", err)
	}
	if status, _ := w.send("GET", "/primary", ""); status != "200 OK" {
		t.Errorf("status %q", status)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.server.Reload(set); err != nil {
		t.Fatal(err)
	}
	if status, _ := w.send("GET", "/primary", ""); status != "200 OK" || w.server.Addr().String() != set.Listen {
		t.Errorf("status %q at %s", status, w.server.Addr())
	}
	if conn, err := net.Dial("tcp", old); err == nil {
		conn.Close()
		t.Error("the old address still answers")
	}
}

func TestReloadRequestReachesTheAgent(t *testing.T) {
	w := newWorld(t)
	w.run()
	if status, text := w.send("POST", "/reload", `ignored`); status != "202 Accepted" || text != "reload scheduled" {
		t.Errorf("%q %q", status, text)
	}
	select {
	case <-w.reloads:
	case <-time.After(30 * time.Second):
		t.Error("nothing was reloaded")
	}
}

// TestStopAnswersWhoWaits: a request under way learns that its outcome isn't known,
// silent clients are let go, and nobody is served after.
func TestStopAnswersWhoWaits(t *testing.T) {
	w := newWorld(t)
	written := make(chan struct{})
	w.ask = func(ctx context.Context, ev events.Event) (bool, string, error) {
		defer close(written)
		return w.writes(ctx, ev)
	}
	stop := w.run()
	threeMembers(w)
	addr := w.server.Addr().String()
	silent, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	answer := make(chan string, 1)
	go func() {
		status, text := w.send("POST", "/switchover", `{"leader":"pg00"}`)
		answer <- status + " " + text
	}()
	<-written
	if err := stop(); err != nil {
		t.Error(err)
	}
	if got := <-answer; got != "503 Service Unavailable Switchover status unknown" {
		t.Errorf("answer %q", got)
	}
	if _, err := io.ReadAll(silent); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Error(err)
	}
	if conn, err := net.Dial("tcp", addr); err == nil {
		conn.Close()
		t.Error("it still listens")
	}
	if err := w.server.Reload(w.opt.Settings); !errors.Is(err, net.ErrClosed) {
		t.Errorf("reload after the end: %v", err)
	}
}

// TestClientThatDoesNotReadIsGivenUp: its place is free again in time.
func TestClientThatDoesNotReadIsGivenUp(t *testing.T) {
	bubble(t, func(w *world) {
		ours, theirs := net.Pipe() // a pipe holds nothing, so a write waits for its reader
		defer theirs.Close()
		c := w.server.conns.admit(w.t.Context(), ours)
		done := make(chan struct{})
		began := time.Now()
		go func() { defer close(done); w.server.serve(w.t.Context(), c) }()
		if _, err := io.WriteString(theirs, "GET /patroni HTTP/1.1\r\n\r\n"); err != nil {
			w.t.Fatal(err)
		}
		<-done
		if took := time.Since(began); took != writeWithin {
			w.t.Errorf("served for %v", took)
		}
		if n := len(w.server.conns.places); n != 0 {
			w.t.Errorf("%d places taken", n)
		}
	})
}

// TestNobodyIsAdmittedWhenTheServerStops: also not who waited for a place.
func TestNobodyIsAdmittedWhenTheServerStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cs := newConnections(1)
		first, far := net.Pipe()
		defer far.Close()
		c := cs.admit(t.Context(), first)
		if !cs.busy(c) {
			t.Fatal("not served")
		}
		ctx, cancel := context.WithCancel(t.Context())
		second, farther := net.Pipe()
		defer farther.Close()
		got := make(chan *connection, 1)
		go func() { got <- cs.admit(ctx, second) }()
		synctest.Wait()
		if len(got) > 0 {
			t.Error("admitted without a place")
		}
		cancel()
		if c := <-got; c != nil {
			t.Error("admitted after the end")
		}
		if _, err := second.Write([]byte{0}); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("its connection is open: %v", err)
		}
		cs.closeIdle()
		if cs.busy(c) {
			t.Error("something new was begun")
		}
		cs.leave(c)
	})
}

// TestStringsAreASCII, and separators inside strings stay as they are.
func TestStringsAreASCII(t *testing.T) {
	for in, want := range map[string]string{
		"plain": `"plain"`, "é€😀": `"\u00e9\u20ac\ud83d\ude00"`, "a\"b\\c\n\t\x01": `"a\"b\\c\n\t\u0001"`, "<&>": `"<&>"`, ", : ": `", : "`,
	} {
		if got := string(quote(in)); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
	if got, err := respace([]byte(`{"a,b":[1,{"c:\"d,":null}],"e":{}}`)); err != nil || string(got) != `{"a,b": [1, {"c:\"d,": null}], "e": {}}` {
		t.Errorf("%s, %v", got, err)
	}
	if _, err := respace([]byte(`{`)); err == nil {
		t.Error("half a value is no error")
	}
	for _, bad := range []string{``, `1`, `[]`, `{"a":1}{"b":2}`, `{"a"`, `{"a":}`, `null`, `{} x`} {
		if f, err := readFields([]byte(bad)); err == nil {
			t.Errorf("%q: %v", bad, f)
		}
	}
	f, err := readFields([]byte(`{"b":"x","a":null,"b":"y","n":1}`))
	if err != nil || len(f) != 3 || f[0].key != "b" {
		t.Fatalf("%v, %v", f, err)
	}
	for key, want := range map[string]string{"b": "y true", "a": " true", "z": " true", "n": " false"} {
		if v, ok := f.text(key); fmt.Sprint(v, " ", ok) != want {
			t.Errorf("%s: %q %v, want %s", key, v, ok, want)
		}
	}
}
