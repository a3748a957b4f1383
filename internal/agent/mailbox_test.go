package agent

import (
	"sync"
	"testing"

	"github.com/pgregent/regent/events"
)

func kinds(evs []events.Event) (out []events.Kind) {
	for _, ev := range evs {
		out = append(out, ev.Kind())
	}
	return out
}

func TestMailboxKeepsTheLatestObservationAndEverythingElse(t *testing.T) {
	m := newMailbox()
	done := events.ActionFinished{Action: "stop"}
	m.put(events.PostgresObserved{Began: 1})
	m.put(done)
	m.put(events.PostgresDown{PID: 1})
	m.put(events.PostgresObserved{Began: 2})
	m.put(events.PostgresDown{PID: 2})
	m.put(done)
	got := m.take()
	want := []events.Kind{
		done.Kind(), events.PostgresDown{}.Kind(), events.PostgresObserved{}.Kind(), events.PostgresDown{}.Kind(), done.Kind(),
	}
	if len(got) != len(want) {
		t.Fatalf("%v, want %v", kinds(got), want)
	}
	for i := range want {
		if got[i].Kind() != want[i] {
			t.Fatalf("%v, want %v", kinds(got), want)
		}
	}
	if o := got[2].(events.PostgresObserved); o.Began != 2 {
		t.Errorf("the observation that stayed began at %d, want the newer one", o.Began)
	}
	if left := m.take(); len(left) != 0 {
		t.Errorf("%v are left", kinds(left))
	}
}

// TestMailboxKeepsEveryRead: a linearizable read is proof that a pushed view, newer or
// not, doesn't give.
func TestMailboxKeepsEveryRead(t *testing.T) {
	m := newMailbox()
	m.put(events.ClusterObserved{View: events.ClusterView{Revision: 1}})
	m.put(events.ClusterObserved{View: events.ClusterView{Revision: 1}, Read: 5})
	m.put(events.ClusterObserved{View: events.ClusterView{Revision: 2}})
	m.put(events.ClusterObserved{View: events.ClusterView{Revision: 2}, Read: 6})
	var reads, pushed int
	for _, ev := range m.take() {
		if o := ev.(events.ClusterObserved); o.Read != 0 {
			reads++
		} else if pushed++; o.View.Revision != 2 {
			t.Errorf("the pushed view that stayed has revision %d", o.View.Revision)
		}
	}
	if reads != 2 || pushed != 1 {
		t.Errorf("%d reads and %d pushed views, want 2 and 1", reads, pushed)
	}
}

func TestMailboxBoundsRequestsOnly(t *testing.T) {
	m := newMailbox()
	for i := range maxRequests {
		if err := m.request(events.RestartRequested{}); err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
	}
	if err := m.request(events.RestartRequested{}); err == nil {
		t.Error("there is no bound")
	}
	m.put(events.PostgresDown{})
	if n := len(m.take()); n != maxRequests+1 {
		t.Errorf("%d events, want %d", n, maxRequests+1)
	}
	if err := m.request(events.RestartRequested{}); err != nil {
		t.Errorf("an empty mailbox refuses: %v", err)
	}
}

func TestMailboxNeverLosesAWakeUp(t *testing.T) {
	m := newMailbox()
	const senders, each = 8, 500
	var wg sync.WaitGroup
	for range senders {
		wg.Go(func() {
			for range each {
				m.put(events.PostgresDown{})
			}
		})
	}
	for got := 0; got < senders*each; {
		<-m.wake
		got += len(m.take())
	}
	wg.Wait()
}
