package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgregent/regent/fsm"
	"github.com/pgregent/regent/internal/config"
	"github.com/pgregent/regent/internal/ctl/story"
)

// answering is a member's REST API: an answer by URL; others are unreachable.
type answering map[string]string

// Call implements Caller.
func (a answering) Call(_ context.Context, method, url string, _ []byte) (int, []byte, error) {
	switch body, ok := a[method+" "+url]; {
	case !ok:
		return 0, nil, fmt.Errorf("call %s: %w", url, ErrUnreachable)
	case body == "":
		return 503, []byte("this member keeps no journal"), nil
	default:
		return 200, []byte(body), nil
	}
}

// asks runs a command with members that answer so.
func (w *world) asks(members answering, args ...string) (out, errs string, code int) {
	w.t.Helper()
	var o, e bytes.Buffer
	env := w.env(strings.NewReader(""), &o, &e)
	env.Dial = func(config.Ctl) (Caller, error) { return members, nil }
	code = execute(w.t.Context(), env, args)
	return o.String(), e.String(), code
}

func answerOf(t *testing.T, member string, at time.Time) string {
	t.Helper()
	b, err := json.Marshal(story.Answer{
		Member: "pg01", At: at, Now: true, Known: true, Seq: 7, Time: at, Phase: "following", Rule: "following/following",
		Reason: "said by " + member, Rejected: []fsm.Rejected{{Rule: "leader-gone", Why: "leader is pg00"}},
		Confirmed: &story.Confirmed{Count: 412, Since: at.Add(-time.Minute), Last: at},
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestWhyAsksTheMemberThatIsNamed(t *testing.T) {
	w := newWorld(t)
	members := answering{
		"GET http://h1:8008/why":                             answerOf(t, "itself", noon()),
		"GET http://h1:8008/why?at=2026-11-22T20%3A30%3A00Z": answerOf(t, "itself then", noon()),
		"GET http://h0:8008/why":                             "<html>I am a Patroni</html>",
	}
	out, errs, code := w.asks(members, "why", "--member", "pg01")
	for _, want := range []string{
		"As of 2026-11-22 22:08:02.476 pg01 is following.", "because  said by itself\n", "  leader-gone: leader is pg00\n",
		"still    the same since 2026-11-22 22:07:02.476, last confirmed 2026-11-22 22:08:02.476, by 412 facts",
	} {
		if !strings.Contains(out, want) || code != 0 {
			t.Errorf("exit %d, %q is missing in:\n%s%s", code, want, out, errs)
		}
	}
	if out, errs, code := w.asks(members, "why", "-m", "pg01", "--at", "2026-11-22 21:30"); code != 0 || !strings.Contains(out, "said by itself then") {
		t.Errorf("exit %d:\n%s%s", code, out, errs)
	}
	for want, args := range map[string][]string{
		"it is a Patroni, or an older Regent":         {"why", "-m", "pg00"},
		"Member pg09 is not a member of cluster demo": {"why", "-m", "pg09"},
		"Either --member or --dir":                    {"why", "-m", "pg01", "--dir", w.dir},
	} {
		if out, errs, code := w.asks(members, args...); code != 1 || !strings.Contains(errs, want) {
			t.Errorf("%v: exit %d:\n%s%s", args, code, out, errs)
		}
	}
	if _, errs, code := w.asks(answering{"GET http://h1:8008/why": ""}, "why", "-m", "pg01"); code != 1 || !strings.Contains(errs, "it answered 503: this member keeps no journal") {
		t.Errorf("exit %d: %s", code, errs)
	}
	if _, errs, code := w.asks(answering{}, "why", "-m", "pg01"); code != 1 || !strings.Contains(errs, "unreachable") {
		t.Errorf("exit %d: %s", code, errs)
	}
}

// The agent itself knows what isn't in its journal yet; its journal is there without it.
func TestWhyAsksTheAgentOfTheFileAndReadsItsJournalOtherwise(t *testing.T) {
	w := newWorld(t)
	dir := filepath.Join(w.dir, "journal")
	writeJournal(t, dir)
	w.write("scope: demo\nname: pg01\nraft: {self_addr: 'h:1'}\nrestapi: {listen: 'h1:8008', connect_address: 'h1:8008'}\nregent: {journal: {dir: " + dir + "}}\n")
	running := answering{"GET http://h1:8008/why": answerOf(t, "the agent", noon())}
	if out, errs, code := w.asks(running, "why"); code != 0 || !strings.Contains(out, "said by the agent") {
		t.Errorf("exit %d:\n%s%s", code, out, errs)
	}
	if out, errs, code := w.asks(running, "why", "--dir", dir); code != 0 || !strings.Contains(out, "pg01 is stop") {
		t.Errorf("exit %d:\n%s%s", code, out, errs)
	}
	if out, errs, code := w.asks(answering{}, "why"); code != 0 || !strings.Contains(out, "pg01 is stop") {
		t.Errorf("exit %d:\n%s%s", code, out, errs)
	}
	w.write("scope: demo\nname: pg02\nraft: {self_addr: 'h:1'}\nrestapi: {listen: 'h1:8008', connect_address: 'h1:8008'}\nregent: {journal: {dir: " + dir + "}}\n")
	if out, errs, code := w.asks(running, "why"); code != 0 || strings.Contains(out, "said by the agent") {
		t.Errorf("somebody else answered: exit %d:\n%s%s", code, out, errs)
	}
}
