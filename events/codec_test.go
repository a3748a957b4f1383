package events

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// all is one value of every event type.
func all() []Event {
	return []Event{
		AgentStarted{}, Tick{}, TimerFired{}, Reconsider{}, TimeJumped{}, JournalDegraded{}, ShutdownRequested{},
		ClusterObserved{}, DCSUnavailable{}, DCSRestored{}, LeaseAcquired{}, LeaseRenewed{}, RenewalFailed{}, LeaseLost{},
		PostgresObserved{}, PostgresUp{}, PostgresDown{}, PrimaryStartTimeout{}, FenceBegun{}, KeeperLost{}, KeeperFound{},
		UnexpectedPrimary{}, CleanShutdown{}, WalReceiverEnded{}, SyncLost{}, PeerObserved{}, FailsafeAsked{}, FailsafeAnswered{},
		SwitchoverRequested{}, FailoverRequested{}, RestartRequested{}, RestartWithdrawn{}, ReinitRequested{}, PauseChanged{}, ConfigChanged{},
		ActionFinished{},
	}
}

func TestEveryKindHasOneTypeAndItsName(t *testing.T) {
	var kinds []Kind
	for _, ev := range all() {
		if name := reflect.TypeOf(ev).Name(); name != string(ev.Kind()) {
			t.Errorf("%s is journaled as %s", name, ev.Kind())
		}
		kinds = append(kinds, ev.Kind())
		back, err := Unmarshal(ev.Kind(), []byte("{}"))
		if err != nil || !reflect.DeepEqual(back, ev) {
			t.Errorf("%s decodes to %#v, %v", ev.Kind(), back, err)
		}
	}
	if !slices.Equal(kinds, Kinds()) {
		t.Errorf("Kinds() is not the list of the event types:\n%v\n%v", Kinds(), kinds)
	}
}

// fill sets every field to something that is not its zero value.
func fill(t *rapid.T, v reflect.Value) {
	if v.Type() == reflect.TypeFor[json.RawMessage]() {
		v.SetBytes([]byte(`{"a":` + string(rune('0'+rapid.IntRange(0, 9).Draw(t, "raw"))) + `}`))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i))
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), rapid.IntRange(1, 3).Draw(t, "length"), 3))
		for i := range v.Len() {
			fill(t, v.Index(i))
		}
	case reflect.String:
		v.SetString(rapid.StringMatching(`[ -~äé]{1,12}`).Draw(t, "text"))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(rapid.Int64Range(1, 1<<31-1).Draw(t, "number"))
	case reflect.Uint32:
		v.SetUint(uint64(rapid.Uint32Min(1).Draw(t, "number")))
	case reflect.Uint64:
		v.SetUint(rapid.Uint64Min(1).Draw(t, "number"))
	default:
		t.Fatalf("a field of type %s: events hold plain values only", v.Type())
	}
}

// A journaled event comes back as it was, every field of it.
func TestEveryEventSurvivesTheJournal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		for _, empty := range all() {
			v := reflect.New(reflect.TypeOf(empty)).Elem()
			fill(t, v)
			ev := v.Interface().(Event)
			b, err := Marshal(ev)
			if err != nil {
				t.Fatal(err)
			}
			back, err := Unmarshal(ev.Kind(), b)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(ev, back) {
				t.Fatalf("%s changed:\n%#v\n%#v", ev.Kind(), ev, back)
			}
			again, err := Marshal(back)
			if err != nil || string(again) != string(b) {
				t.Fatalf("%s encodes differently the second time: %s, %s, %v", ev.Kind(), b, again, err)
			}
		}
	})
}

func TestDecodingIsForgivingOfWhatItDoesNotKnow(t *testing.T) {
	ev, err := Unmarshal(KindPostgresDown, []byte(`{"pid":7,"from_the_future":{"x":1}}`))
	if down, ok := ev.(PostgresDown); err != nil || !ok || down.PID != 7 {
		t.Errorf("a field of a newer version: %#v, %v", ev, err)
	}
	if _, err := Unmarshal("FromTheFuture", []byte(`{}`)); err == nil || !strings.Contains(err.Error(), "FromTheFuture") {
		t.Errorf("an unknown kind: %v", err)
	}
	for _, k := range Kinds() {
		if _, err := Unmarshal(k, []byte(`[1`)); err == nil || !strings.Contains(err.Error(), string(k)) {
			t.Errorf("%s: broken JSON: %v", k, err)
		}
	}
}

func FuzzUnmarshal(f *testing.F) {
	for i, ev := range all() {
		b, err := Marshal(ev)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(i, b)
	}
	f.Fuzz(func(t *testing.T, i int, b []byte) {
		kinds := Kinds()
		k := kinds[((i%len(kinds))+len(kinds))%len(kinds)]
		ev, err := Unmarshal(k, b)
		if err != nil {
			return
		}
		if ev.Kind() != k {
			t.Fatalf("%s decoded to %s", k, ev.Kind())
		}
		first, err := Marshal(ev)
		if err != nil {
			t.Fatal(err)
		}
		back, err := Unmarshal(k, first)
		if err != nil {
			t.Fatalf("%s does not read what it wrote: %s: %v", k, first, err)
		}
		if second, err := Marshal(back); err != nil || string(second) != string(first) {
			t.Fatalf("%s is not stable: %s, %s, %v", k, first, second, err)
		}
	})
}
