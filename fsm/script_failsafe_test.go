package fsm

import (
	"fmt"
	"strings"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/pgregent/regent/events"
)

// failsafeKey reads VERSION/NAME,… into the failsafe key.
func failsafeKey(spec string) events.Failsafe {
	at, names, _ := strings.Cut(spec, "/")
	k := events.Failsafe{Version: events.Revision(args{"v": at}.num("v"))}
	for _, n := range strings.FieldsFunc(names, func(r rune) bool { return r == ',' }) {
		k.Members = append(k.Members, events.FailsafeMember{Name: events.NodeName(n), APIURL: "http://" + n + ":8008/patroni"})
	}
	return k
}

// failsafe are the lines about failsafe mode: a primary asks this member, or a member answers
// this primary, or the promises are shown.
func (e *env) failsafe(d *datadriven.TestData, a args) {
	switch d.Cmd {
	case "asked":
		e.step(events.FailsafeAsked{ID: "q1", From: events.NodeName(a["from"]), TTL: a.dur("ttl", 0)})
	case "answer":
		ev := events.FailsafeAnswered{ID: e.last["ask-failsafe"], Member: events.NodeName(a["name"]), Why: a["no"]}
		ev.Accepted = !a.has("no")
		e.step(ev)
	case "promises":
		f := e.s.Failsafe
		left := func(at events.Instant) string {
			if at <= e.now {
				return "none"
			}
			return "+" + at.Sub(e.now).Round(10*time.Millisecond).String()
		}
		fmt.Fprintf(&e.out, "belief=%s lease=%s promises=%s given=%s keeper=%s active=%v\n", left(e.s.fenceAt()), left(e.s.leaseEnd()),
			left(f.Until), left(f.Promise.Until), left(e.s.Keeper.Sent), e.s.FailsafeActive(e.now))
	}
}
