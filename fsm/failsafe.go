package fsm

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgregent/regent/events"
)

// Failsafe mode (S12): a primary that the store doesn't answer goes on as long as all members
// that the failsafe key names promise not to lead. The store's lease and the promises are two
// independent reasons to believe; each alone is enough, so the belief ends with the later one.
// ADR 0025 has the schedules that show what each guard here is for.

// FailsafeWork is this member's part in failsafe mode: as the holder who asks, and as a
// member who is asked.
type FailsafeWork struct {
	// Since is when the promises began to carry the leadership; 0: the lease does.
	Since events.Instant `json:"since,omitempty"`
	// Until is until when the promises are good, reckoned from before they were asked for.
	Until events.Instant `json:"until,omitempty"`
	// From is the revision at which this leadership began: an older view of the failsafe key
	// may be a former holder's.
	From  events.Revision `json:"from,omitempty"`
	Round FailsafeRound   `json:"round"`
	// Why is what kept the last round from being a success; empty: it was one, or there was none.
	Why string `json:"why,omitempty"`
	// Doubt are members named in a write of the key that was sent and not yet seen, or not
	// known to have failed: they are asked as well. At is the version that it was to replace.
	Doubt []events.FailsafeMember `json:"doubt,omitempty"`
	At    events.Revision         `json:"at,omitempty"`
	// Deleted: that write was to delete the key, which would let anybody lead.
	Deleted bool `json:"deleted,omitempty"`
	// GoneSince is since when the key names members that have no member key.
	GoneSince events.Instant `json:"gone_since,omitempty"`

	Promise FailsafePromise `json:"promise,omitzero"`
	// Started is when this run began. Unproven: what was promised before it isn't known.
	Started  events.Instant `json:"started"`
	Unproven bool           `json:"unproven,omitempty"`
	// WasOn: the run before knew that the mode is on. That counts until the store has said
	// what is in force; the file doesn't know, and a promise too many harms nobody.
	WasOn bool `json:"was_on,omitempty"`
	// OffSince is since when the mode is known to be off; 0: it is on.
	OffSince events.Instant `json:"off_since,omitempty"`
	// Landing is until when an acquisition of this member may still land, whose outcome
	// nobody knows.
	Landing events.Instant `json:"landing,omitempty"`
}

// FailsafeRound is one asking of all.
type FailsafeRound struct {
	ID       events.ActionID   `json:"id,omitzero"` // under way; zero: none is
	Sent     events.Instant    `json:"sent,omitempty"`
	TTL      time.Duration     `json:"ttl,omitempty"`
	Asked    []events.NodeName `json:"asked,omitempty"`
	Accepted []events.NodeName `json:"accepted,omitempty"`
	Refused  bool              `json:"refused,omitempty"` // by one of them
}

// FailsafePromise is this member's word not to lead. It is on disk before it is given.
type FailsafePromise struct {
	To    events.NodeName `json:"to,omitempty"`
	Until events.Instant  `json:"until,omitempty"`
	TTL   time.Duration   `json:"ttl,omitempty"`
}

// leaderAlready is Patroni's answer of a member that is a primary itself.
const leaderAlready = "Running as a leader"

// ---- the holder ----

// vouched: the promises carry the leadership, for long enough to do something under them.
func (s *State) vouched() bool {
	f := &s.Failsafe
	return s.holds() && f.Since != 0 && s.Now < f.Until.Add(-events.StopBudget(s.Settings.TTL))
}

// mayAsk: this member is a primary that may go on without the store at all.
func (s *State) mayAsk() bool {
	leads := s.Phase == Leading || s.Phase == Reviving || s.Phase == Restarting && s.Restart.Primary
	return s.Settings.Failsafe && !s.Settings.Pause && s.Shutdown == "" && s.holds() && leads
}

// askAt is when the members are to be asked next; 0: not at all. The first time when half of
// the belief is gone without a renewal: until then the lease is as good as ever.
func (s *State) askAt() events.Instant {
	f := &s.Failsafe
	ttl := events.Belief(s.Settings.TTL)
	switch {
	case !s.mayAsk() || !f.Round.ID.Zero():
		return 0
	case f.Why != "":
		return max(f.Round.Sent.Add(ttl/16), s.Lease.Sent.Add(events.Belief(s.Lease.trust())/2))
	case f.Since != 0:
		return f.Round.Sent.Add(min(s.Settings.LoopWait, ttl/4))
	default:
		return s.Lease.Sent.Add(events.Belief(s.Lease.trust()) / 2)
	}
}

// vouchers are the members to be asked: all that may lead, as far as this member can know.
// The text says why nobody can be.
func (s *State) vouchers() (list []PeerAddr, text string) {
	k := s.view().Failsafe
	switch {
	case s.view().Revision < s.Failsafe.From:
		return nil, "the failsafe key was not read since this member leads"
	case s.Failsafe.Deleted && k.Version == s.Failsafe.At:
		return nil, "the failsafe key is being deleted"
	case len(k.Members) == 0:
		return nil, "there is no failsafe key that names the members"
	case !k.Has(s.Self):
		return nil, "the failsafe key doesn't name this member"
	}
	for _, m := range append(slices.Clone(k.Members), s.Failsafe.Doubt...) {
		if m.Name != s.Self {
			list = append(list, PeerAddr{Name: m.Name, APIURL: m.APIURL})
		}
	}
	slices.SortStableFunc(list, func(a, b PeerAddr) int { return cmp.Compare(a.Name, b.Name) })
	return slices.CompactFunc(list, func(a, b PeerAddr) bool { return a.Name == b.Name }), ""
}

// keepFailsafe asks the members when the store has been silent for too long.
func (e *effects) keepFailsafe() {
	at := e.askAt()
	if at == 0 || e.Now < at || e.InFlight(AskFailsafe{}) {
		return
	}
	f := &e.Failsafe
	list, why := e.vouchers()
	f.Round = FailsafeRound{Sent: e.Now, TTL: e.Settings.TTL}
	switch {
	case why != "":
		f.Why = why
	case len(list) == 0:
		e.vouch()
	default:
		for _, m := range list {
			f.Round.Asked = append(f.Round.Asked, m.Name)
		}
		f.Round.ID = e.order(AskFailsafe{
			Members: list, TTL: f.Round.TTL, Timeout: min(max(events.Belief(f.Round.TTL)/8, probeTimeout), 2*time.Second),
			ConnURL: e.Settings.ConnURL, APIURL: e.Settings.APIURL, Slots: e.slotPositions(),
		})
	}
}

// absorbAnswer takes in what a member answered. The last one of all that accept extends the
// belief: from before the first question, for that is where each promise's time begins at
// the earliest.
func (e *effects) absorbAnswer(ev events.FailsafeAnswered) {
	r := &e.Failsafe.Round
	switch {
	case ev.ID != r.ID || r.ID.Zero() || !hasName(r.Asked, ev.Member) || hasName(r.Accepted, ev.Member):
		return
	case !ev.Accepted:
		r.Refused, e.Failsafe.Why = true, fmt.Sprintf("%s does not accept: %s", ev.Member, ev.Why)
		return
	}
	r.Accepted = append(slices.Clone(r.Accepted), ev.Member)
	if len(r.Accepted) == len(r.Asked) && e.mayAsk() && e.believes() {
		e.vouch()
	}
}

// vouch: everybody has promised.
func (e *effects) vouch() {
	f := &e.Failsafe
	f.Until, f.Why = max(f.Until, f.Round.Sent.Add(events.Belief(f.Round.TTL))), ""
	if f.Since == 0 {
		f.Since = e.Now
	}
	if e.Keeper.Armed {
		e.extendFence()
	}
}

// outcomeAsk: every member has answered, or its time is over.
func (e *effects) outcomeAsk(ev events.ActionFinished) {
	r := &e.Failsafe.Round
	if r.ID != ev.ID {
		return
	}
	r.ID = events.ActionID{}
	if r.Refused || len(r.Accepted) == len(r.Asked) {
		return
	}
	missing := slices.DeleteFunc(slices.Clone(r.Asked), func(n events.NodeName) bool { return hasName(r.Accepted, n) })
	e.Failsafe.Why = strings.Join(asStrings(missing), ", ") + " did not answer"
}

// confirmed: the store has confirmed the leadership, so promises aren't needed. Those that
// were given stand.
func (s *State) confirmed() {
	f := &s.Failsafe
	f.Since, f.Round, f.Why = 0, FailsafeRound{}, ""
}

// unvouched: this member doesn't lead any more, or has just begun to.
func (s *State) unvouched(from events.Revision) {
	f := &s.Failsafe
	s.confirmed()
	f.Until, f.From, f.GoneSince = 0, from, 0
}

// keepFailsafeKey writes who may lead, and so is to be asked. While promises are relied on
// nobody is added: he has promised nothing. Who is gone is dropped after a ttl: when the store comes
// back, all members' keys have gone for a moment, and whoever isn't named may not lead.
func (e *effects) keepFailsafeKey() {
	f, k := &e.Failsafe, e.view().Failsafe
	if !e.InFlight(WriteFailsafe{}) && k.Version != f.At {
		f.Doubt, f.Deleted, f.At = nil, false, 0 // it has happened, or can't any more
	}
	want, gone := e.electorate()
	switch {
	case !gone || !e.Settings.Failsafe:
		f.GoneSince = 0
	case f.GoneSince == 0:
		f.GoneSince = e.Now
	}
	if e.Lease.ID == "" || f.Since != 0 || e.Now < f.Until || e.view().Revision < f.From || e.InFlight(WriteFailsafe{}) {
		return
	}
	if !e.Settings.Failsafe {
		want = nil // whoever isn't named may not lead, even when the mode is off
	}
	if slices.Equal(want, k.Members) && (want != nil || k.Version == 0) {
		return
	}
	before := len(e.out)
	e.once(WriteFailsafe{Members: want, Version: k.Version, Lease: e.Lease.ID})
	if len(e.out) > before {
		f.Doubt, f.Deleted, f.At = union(f.Doubt, want), f.Deleted || want == nil, k.Version
	}
}

// electorate is what the key should say, and whether it names members that are gone.
func (s *State) electorate() (want []events.FailsafeMember, gone bool) {
	want = []events.FailsafeMember{{Name: s.Self, APIURL: s.Settings.APIURL}}
	for _, m := range s.view().Members {
		if m.Name != s.Self && m.APIURL != "" {
			want = append(want, events.FailsafeMember{Name: m.Name, APIURL: m.APIURL})
		}
	}
	for _, m := range s.view().Failsafe.Members {
		if slices.ContainsFunc(want, func(w events.FailsafeMember) bool { return w.Name == m.Name }) {
			continue
		}
		gone = true
		if since := s.Failsafe.GoneSince; since == 0 || s.Now < since.Add(s.Settings.TTL) {
			want = append(want, m)
		}
	}
	slices.SortFunc(want, func(a, b events.FailsafeMember) int { return cmp.Compare(a.Name, b.Name) })
	return want, gone
}

func union(a, b []events.FailsafeMember) []events.FailsafeMember {
	out := slices.Clone(a)
	for _, m := range b {
		if !slices.Contains(out, m) {
			out = append(out, m)
		}
	}
	return out
}

// failsafeRule says that the promises carry the leadership.
func failsafeRule() rule {
	return rule{
		id: "failsafe", when: func(s *State) (bool, string) {
			f := &s.Failsafe
			if f.Since == 0 {
				return false, "the store confirms the lease"
			}
			who := strings.Join(asStrings(f.Round.Asked), ", ") + " promised not to lead"
			if len(f.Round.Asked) == 0 {
				who = "no other member may lead"
			} else if f.Why != "" {
				who = "the last promises stand, but " + f.Why
			}
			return true, "the store doesn't confirm the lease, and failsafe mode is on: " + who
		},
		status: func(*State) string {
			return "continue to run as a leader because failsafe mode is enabled and all members are accessible"
		},
	}
}

// unconfirmed is why the belief is ending.
func (s *State) unconfirmed() string {
	text := "no renewal was confirmed for " + s.Now.Sub(s.Lease.Sent).Round(time.Millisecond).String()
	if s.Lease.ID == "" {
		text = "the lease is gone, and what the members promised is ending"
	}
	switch f := &s.Failsafe; {
	case !s.Settings.Failsafe:
		return text
	case f.Why != "":
		return text + "; failsafe mode is on, but " + f.Why
	case !f.Round.ID.Zero():
		return text + "; failsafe mode is on, but not all members have answered"
	default:
		return text + "; failsafe mode is on, but the members were not asked in time"
	}
}

// ---- the member that is asked ----

// absorbAsked gives a promise, or refuses it. A promise once given stands for its time,
// whatever becomes of the mode, of the one it was given to, or of this agent.
func (e *effects) absorbAsked(ev events.FailsafeAsked) {
	if why := e.refusesPromise(ev.From); why != "" {
		e.order(Respond{ID: ev.ID, Text: why})
		return
	}
	ttl := max(e.Settings.TTL, ev.TTL)
	p := &e.Failsafe.Promise
	if until := e.Now.Add(ttl); until >= p.Until {
		*p = FailsafePromise{To: ev.From, Until: until, TTL: ttl}
	}
	e.order(Respond{ID: ev.ID, OK: true, Text: "Accepted", Durable: true})
}

// Vouches reports whether failsafe mode is on, as far as this member knows: the store may be
// away since before it started.
func (s *State) Vouches() bool { return s.Settings.Failsafe || s.Failsafe.WasOn && s.Store.Read == 0 }

// refusesPromise says why this member can't promise not to lead; empty: it can.
func (s *State) refusesPromise(from events.NodeName) string {
	l := s.leader()
	switch {
	case !s.Vouches():
		return "failsafe mode is off"
	case from == s.Self:
		return "that is this member's own name"
	case s.holds() || s.primaryUp() || s.doing(Promote{}) || s.doing(StartPrimary{}):
		return leaderAlready
	case !s.Postgres.Known:
		return "PostgreSQL has not been looked at yet"
	case l.Name == s.Self && s.claimed():
		return "the leader key names this member"
	case s.InFlight(AcquireLeader{}) || s.Now < s.Failsafe.Landing:
		return "this member is taking the leader key"
	case s.otherLeads() && l.Name != from && s.Store.DownSince == 0:
		return string(l.Name) + " leads"
	case s.Journal != "":
		return "the promise can't be written to disk: " + s.Journal
	default:
		return ""
	}
}

// failsafeBars says why this member may not take the leader key because of failsafe mode;
// empty: it may.
func (s *State) failsafeBars() string {
	f, k := &s.Failsafe, s.view().Failsafe
	alone := len(k.Members) == 1 && k.Has(s.Self)
	asked := s.Settings.Failsafe || len(k.Members) > 0
	switch {
	case s.Now < f.Promise.Until:
		return fmt.Sprintf("it promised %s not to lead (failsafe mode)", f.Promise.To)
	case f.Unproven && asked && !alone && s.Now < s.unprovenEnd():
		return "nothing proves that it didn't promise not to lead (failsafe mode) before it started"
	case len(k.Members) == 0 || k.Has(s.Self) || s.wish().Candidate == s.Self && s.wish().Leader == "":
		return ""
	case !s.Settings.Failsafe && s.patroniPresent():
		// A Patroni that leads leaves the key behind.
		if s.Now < f.OffSince.Add(s.Settings.TTL) {
			return "failsafe mode has just ended, and a primary may still rely on it"
		}
		return ""
	default:
		return "the failsafe key doesn't name it, so a primary without the store would not ask it"
	}
}

// unprovenEnd is until when a member that can't know what it promised doesn't lead.
func (s *State) unprovenEnd() events.Instant {
	return s.Failsafe.Started.Add(max(s.Settings.TTL, s.Failsafe.Promise.TTL))
}

func (s *State) patroniPresent() bool {
	return slices.ContainsFunc(s.view().Members, func(m events.Member) bool { return m.Regent == "" })
}

// begun carries failsafe mode into another run of the agent. Instants of another boot mean
// nothing, and an empty journal knows of no promise: then the longest that may have been
// given binds from now on.
func (old FailsafeWork) begun(now events.Instant, proven, on bool) FailsafeWork {
	f := FailsafeWork{Started: now, OffSince: now, WasOn: on, Promise: old.Promise, Unproven: !proven, Landing: old.Landing}
	if !proven {
		f.Promise.Until, f.Landing = 0, 0
	} else if old.Unproven {
		// The run before had no proof either, and may not have waited.
		f.Started, f.Unproven = old.Started, true
	}
	return f
}

// FailsafeActive reports whether failsafe mode carries a primary: this member, or the one
// that it has given its promise to.
func (s *State) FailsafeActive(now events.Instant) bool {
	f := &s.Failsafe
	return f.Since != 0 && s.holds() && s.mayAsk() && now < f.Until || now < f.Promise.Until
}

// failsafeDeadlines are the instants at which failsafe mode could come to another result.
func (s *State) failsafeDeadlines() []SetTimer {
	f := &s.Failsafe
	d := []SetTimer{{"failsafe", s.askAt()}, {"promise", f.Promise.Until}}
	if s.unlocked() && !s.holds() {
		d = append(d, SetTimer{"unproven", s.unprovenEnd()}, SetTimer{"failsafe_off", f.OffSince.Add(s.Settings.TTL)})
	}
	if s.holds() {
		d = append(d, SetTimer{"promises", f.Until})
	}
	if f.GoneSince != 0 {
		d = append(d, SetTimer{"failsafe_gone", f.GoneSince.Add(s.Settings.TTL)})
	}
	return d
}
