package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/pgregent/regent/events/journal"
	"github.com/pgregent/regent/fsm"
	"github.com/pgregent/regent/internal/ctl/story"
	"github.com/pgregent/regent/internal/replay"
)

const (
	// maxFollowers bounds the clients of GET /events.
	maxFollowers = 16
	// stillHere is the pause after which a client hears that nothing has happened.
	stillHere = 10 * time.Second
	// atOnce is how many records are taken from the journal's memory at a time.
	atOnce = 64
)

func (s *Server) quiet() (fsm.Stretch, time.Time) {
	if s.opt.Quiet == nil {
		return fsm.Stretch{}, time.Time{}
	}
	return s.opt.Quiet()
}

// events answers GET /events: server-sent events, one for each fact with the decision
// and its reason, as they are journaled. The id of an event is the journal's number; with
// Last-Event-ID, or ?after=, the stream goes on behind that one, from the disk if need be.
// A client that doesn't take what it is sent is dropped: it reads the journal in its own
// time, and neither the agent nor another client waits for it.
func (s *Server) events(_ context.Context, r *request) *reply {
	if s.opt.Journal == nil {
		return inText(http.StatusServiceUnavailable, "this member keeps no journal")
	}
	after, from := s.opt.Journal.LastSeq(), r.header.Get("Last-Event-ID")
	if text, ok := r.param("after"); ok && from == "" {
		from = text
	}
	wanted := after
	if from != "" {
		n, err := strconv.ParseUint(from, 10, 64)
		if err != nil {
			return inText(http.StatusBadRequest, "Last-Event-ID must be the number of an event")
		}
		wanted = n
	}
	select {
	case s.following <- struct{}{}:
	default:
		return inText(http.StatusServiceUnavailable, fmt.Sprintf("%d clients follow the events already", maxFollowers))
	}
	return &reply{
		code: http.StatusOK, kind: "text/event-stream", headers: [][2]string{{"Cache-Control", "no-cache"}},
		stream: func(ctx context.Context, conn net.Conn) {
			defer func() { <-s.following }()
			f := follower{s: s, conn: conn, at: wanted}
			if err := f.run(ctx, after); err != nil && ctx.Err() == nil {
				s.log.Debug("a client that followed the events is gone", "client", conn.RemoteAddr().String(), "err", err)
			}
		},
	}
}

// follower is a client of GET /events.
type follower struct {
	s    *Server
	conn net.Conn
	at   uint64 // the last record that was dealt with
	// fact waits for its decision, which is the next record.
	fact *journal.Record
}

// run sends events until the client or the server goes.
func (f *follower) run(ctx context.Context, last uint64) error {
	if err := f.write([]byte(": events of " + string(f.s.opt.Name) + "\n\n")); err != nil {
		return err
	}
	if f.at > last { // of a journal that is no more
		if err := f.lost("the journal ends before this number"); err != nil {
			return err
		}
		f.at = last
	}
	pause := time.NewTimer(stillHere)
	defer pause.Stop()
	for {
		records, more, ok := f.s.opt.Journal.After(f.at, atOnce)
		var err error
		switch {
		case !ok:
			err = f.catchUp(ctx)
		case len(records) > 0:
			err = f.all(records)
		default:
			select {
			case <-ctx.Done():
				return nil
			case <-more:
			case <-pause.C:
				err = f.write([]byte(": still here\n\n"))
				pause.Reset(stillHere)
			}
			if err != nil {
				return err
			}
			continue
		}
		if err != nil || ctx.Err() != nil {
			return err
		}
		pause.Reset(stillHere)
	}
}

// catchUp sends what the disk has and the memory has no more.
func (f *follower) catchUp(ctx context.Context) error {
	began := f.at
	for e, err := range journal.ReadFrom(f.s.opt.Journal.Dir(), f.at+1) {
		var damage *journal.Damage
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &damage):
			err = f.lost(damage.Error())
		case err != nil:
			err = fmt.Errorf("read the journal: %w", err)
		case e.Kind == journal.KindSnapshot || e.Seq <= f.at:
		default:
			if e.First() > f.at+1 && f.at != 0 && e.Kind != journal.KindGap {
				err = f.lost("older records were deleted to keep the journal's size")
			}
			if err == nil {
				err = f.take(e.Record)
			}
		}
		if err != nil {
			return err
		}
	}
	if f.at != began {
		return nil
	}
	// The disk doesn't have them: go on where the memory begins.
	to := f.s.opt.Journal.LastSeq()
	if oldest := f.s.opt.Journal.Recent(1 << 20); len(oldest) > 0 {
		to = oldest[0].First() - 1
	}
	if to <= f.at {
		return nil
	}
	err := f.lost("the disk did not take these records")
	f.at = to
	return err
}

func (f *follower) all(records []journal.Record) error {
	for _, r := range records {
		if err := f.take(r); err != nil {
			return err
		}
	}
	return nil
}

// take sends a record; a fact waits for the decision behind it.
func (f *follower) take(r journal.Record) error {
	f.at = r.Seq
	decided := r.Kind == replay.KindDecision && f.fact != nil && f.fact.Seq+1 == r.Seq
	if f.fact != nil && !decided {
		if err := f.send(*f.fact, nil); err != nil {
			return err
		}
	}
	fact := f.fact
	f.fact = nil
	switch {
	case decided:
		return f.send(*fact, &r)
	case r.Kind == journal.KindGap:
		return f.lost(string(r.Payload))
	case !r.Derived:
		f.fact = &r
		return nil
	default:
		return f.send(r, nil)
	}
}

// told is the data of an event.
type told struct {
	Seq   uint64    `json:"seq"`
	Time  time.Time `json:"time"`
	Event string    `json:"event"`
	// Fact in words, and as it was journaled.
	Fact    string          `json:"fact,omitempty"`
	Content json.RawMessage `json:"content,omitempty"`
	// Decision is what the machine made of it, with its reason.
	Decision *fsm.Derived `json:"decision,omitempty"`
}

func (f *follower) send(r journal.Record, decision *journal.Record) error {
	t := told{Seq: r.Seq, Time: time.Unix(0, r.Wall).UTC(), Event: r.Kind}
	if json.Valid(r.Payload) {
		t.Content = r.Payload
	}
	id := r.Seq
	if entry, err := replay.Entry(r); err == nil && !r.Derived {
		t.Fact = story.Sentence(entry.Event)
	}
	if decision != nil {
		id = decision.Seq
		var d fsm.Derived
		if err := json.Unmarshal(decision.Payload, &d); err == nil {
			t.Decision = &d
		}
	}
	return f.event(strconv.FormatUint(id, 10), r.Kind, t)
}

// lost tells the client that events after the last one are missing, and why.
func (f *follower) lost(why string) error {
	return f.event("", "lost", struct {
		After uint64 `json:"after"`
		Why   string `json:"why"`
	}{f.at, why})
}

// event writes one event. A kind is a word and JSON has no line breaks, so each is one
// line.
func (f *follower) event(id, kind string, data any) error {
	body, err := json.Marshal(data)
	if err != nil {
		return fmt.Errorf("encode the event: %w", err)
	}
	var b bytes.Buffer
	if id != "" {
		fmt.Fprintf(&b, "id: %s\n", id)
	}
	fmt.Fprintf(&b, "event: %s\ndata: %s\n\n", kind, body)
	return f.write(b.Bytes())
}

func (f *follower) write(b []byte) error {
	if err := f.conn.SetWriteDeadline(time.Now().Add(writeWithin)); err != nil {
		return err
	}
	_, err := f.conn.Write(b)
	return err
}
