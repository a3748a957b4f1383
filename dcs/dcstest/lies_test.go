package dcstest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
)

// lie is what a store could do wrong, and the properties that must notice.
type lie struct {
	name   string
	breaks []string
	tell   func(l *liar, env *Env)
}

func lies() []lie {
	return slices.Concat(readingLies(), watchingLies(), writingLies(), leaseLies(), faultLies())
}

func readingLies() []lie {
	return []lie{
		{"a read is served from what was read 20 ms ago", []string{
			"view: linearizable reads see every write completed before", "history: linearizable, leases included",
		}, func(l *liar, _ *Env) { l.view = l.cached(20*time.Millisecond, false) }},
		{"a local read says that it is fresh, and is old", []string{
			"view: local reads are never older than they say",
		}, func(l *liar, _ *Env) { l.view = l.cached(30*time.Millisecond, true) }},
		{"keys come in any order", []string{"view: keys are sorted, values are whole"}, func(l *liar, _ *Env) {
			l.view = func(ctx context.Context, c dcs.Consistency) (dcs.View, error) {
				v, err := l.Store.View(ctx, c)
				v.KVs = slices.Clone(v.KVs)
				slices.Reverse(v.KVs)
				return v, err
			}
		}},
		{"an error has two classes", []string{"calls obey their context"}, func(l *liar, _ *Env) {
			l.view = func(ctx context.Context, c dcs.Consistency) (dcs.View, error) {
				v, err := l.Store.View(ctx, c)
				if err != nil {
					err = fmt.Errorf("%w: %w", dcs.ErrUnknown, err)
				}
				return v, err
			}
		}},
		{"an ended context is ignored", []string{"calls obey their context"}, func(l *liar, _ *Env) {
			l.renew = func(_ context.Context, id events.LeaseID) (dcs.Lease, error) {
				return l.Store.Renew(context.Background(), id)
			}
		}},
		{"two clusters share their keys", []string{scopeName}, func(l *liar, env *Env) {
			env.Elsewhere = func() (dcs.Store, error) { return env.Open() }
		}},
	}
}

// cached serves reads from a copy: all linearizable ones, or the local ones, which then
// claim to be new.
func (l *liar) cached(keep time.Duration, local bool) func(context.Context, dcs.Consistency) (dcs.View, error) {
	var (
		mu   sync.Mutex // guards the rest
		copy dcs.View
		from time.Time
	)
	return func(ctx context.Context, c dcs.Consistency) (dcs.View, error) {
		if (c == dcs.Local) != local {
			return l.Store.View(ctx, c)
		}
		mu.Lock()
		defer mu.Unlock()
		if time.Since(from) > keep {
			v, err := l.Store.View(ctx, c)
			if err != nil {
				return v, err
			}
			copy, from = v, time.Now()
		}
		return copy, nil
	}
}

func watchingLies() []lie {
	return []lie{
		{"a watch leaves a change out", []string{
			"watch: a whole view at once, then one after every change",
		}, func(l *liar, _ *Env) {
			views := 0
			var mu sync.Mutex // guards views
			l.watch = l.passing(func(v dcs.View) (dcs.View, bool) {
				mu.Lock()
				defer mu.Unlock()
				views++
				return v, views%3 != 0
			})
		}},
		{"a watch goes back", []string{"watch: revisions never go backwards"}, func(l *liar, _ *Env) {
			var mu sync.Mutex // guards first and views
			var first dcs.View
			views := 0
			l.watch = l.passing(func(v dcs.View) (dcs.View, bool) {
				mu.Lock()
				defer mu.Unlock()
				if views++; views == 1 {
					first = v
				}
				if views == 4 {
					return first, true
				}
				return v, true
			})
		}},
		{"a watch keeps every view for its reader", []string{
			"watch: a slow reader misses intermediate views, never the latest",
		}, func(l *liar, _ *Env) { l.watch = l.hoarding }},
		{"a view claims a newer revision than it shows", []string{
			"watch: each view is the whole store at its revision",
		}, func(l *liar, _ *Env) {
			l.watch = l.passing(func(v dcs.View) (dcs.View, bool) { v.Revision++; return v, true })
		}},
		{"a watch keeps deleted keys", []string{
			"watch: each view is the whole store at its revision", "fault: a watch resumes when its link was cut",
			"fault: a watch resumes across compaction",
		}, func(l *liar, _ *Env) {
			var mu sync.Mutex // guards ever
			ever := map[string]dcs.KV{}
			l.watch = l.passing(func(v dcs.View) (dcs.View, bool) {
				mu.Lock()
				defer mu.Unlock()
				for _, kv := range v.KVs {
					ever[kv.Key] = kv
				}
				v.KVs = nil
				for _, kv := range ever {
					v.KVs = append(v.KVs, kv)
				}
				return v, true
			})
		}},
		{"a watch outlives its context", []string{"watch: ends with its context"}, func(l *liar, _ *Env) {
			l.watch = func(context.Context) (<-chan dcs.View, error) { return l.Store.Watch(context.Background()) }
		}},
		{"a watch whose link was cut stays dumb", []string{"fault: a watch resumes when its link was cut"}, func(l *liar, env *Env) {
			dumb := atomic.Bool{}
			faults := env.Faults
			env.Faults = meddler{faults, func(k Kind, target int) (func() error, error) {
				dumb.Store(dumb.Load() || k == CutClient)
				return faults.Inflict(k, target)
			}}
			l.watch = l.passing(func(v dcs.View) (dcs.View, bool) { return v, !dumb.Load() })
		}},
	}
}

// hoarding is a watch with a long queue.
func (l *liar) hoarding(ctx context.Context) (<-chan dcs.View, error) {
	in, err := l.Store.Watch(ctx)
	if err != nil {
		return nil, err
	}
	out := make(chan dcs.View, 1000)
	go func() { // ends with the watch
		defer close(out)
		for v := range in {
			out <- v
		}
	}()
	return out, nil
}

func writingLies() []lie {
	return []lie{
		{"a guarded write is acknowledged and not done", []string{
			"commit: no increment is lost", "history: linearizable, leases included",
		}, func(l *liar, _ *Env) {
			var n atomic.Int64
			l.commit = func(ctx context.Context, t dcs.Txn) (events.Revision, error) {
				if len(t.Guards) > 0 && n.Add(1)%5 == 0 {
					v, err := l.Store.View(ctx, dcs.Linearizable)
					return v.Revision + 1, err
				}
				return l.Store.Commit(ctx, t)
			}
		}},
		{"guards on values are ignored", []string{"commit: each guard"}, func(l *liar, _ *Env) {
			l.commit = l.without(func(_ int, g dcs.Guard) bool { return g.Value != nil })
		}},
		{"the third guard is ignored", []string{
			"commit: three writes under three guards, at one revision or not at all",
		}, func(l *liar, _ *Env) { l.commit = l.without(func(i int, _ dcs.Guard) bool { return i == 2 }) }},
		{"a guard on absence is ignored", []string{"commit: one of many wins"}, func(l *liar, _ *Env) {
			l.commit = l.without(func(_ int, g dcs.Guard) bool { return g.Absent })
		}},
		{"a transaction is carried out in pieces", []string{"commit: nobody sees half a transaction"}, func(l *liar, _ *Env) {
			l.commit = func(ctx context.Context, t dcs.Txn) (rev events.Revision, err error) {
				for _, w := range t.Writes {
					if rev, err = l.Store.Commit(ctx, dcs.Txn{Guards: t.Guards, Writes: []dcs.Write{w}}); err != nil {
						return rev, err
					}
				}
				return rev, nil
			}
		}},
		{"a key is never older than its last change", []string{"commit: created and version"}, func(l *liar, _ *Env) {
			l.view = func(ctx context.Context, c dcs.Consistency) (dcs.View, error) {
				v, err := l.Store.View(ctx, c)
				v.KVs = slices.Clone(v.KVs)
				for i := range v.KVs {
					v.KVs[i].Created = v.KVs[i].Version
				}
				return v, err
			}
		}},
		{"deleting an absent key is refused", []string{"commit: deleting an absent key is no error"}, func(l *liar, _ *Env) {
			l.commit = func(ctx context.Context, t dcs.Txn) (events.Revision, error) {
				for _, w := range t.Writes {
					if w.Delete {
						t.Guards = append(t.Guards, dcs.Guard{Key: w.Key, Version: 1})
					}
				}
				return l.Store.Commit(ctx, t)
			}
		}},
		{"what can't be done is said to be unavailable", []string{"commit: what can't be done is broken"}, func(l *liar, _ *Env) {
			l.commit = func(ctx context.Context, t dcs.Txn) (events.Revision, error) {
				if t.Validate() != nil {
					return 0, dcs.ErrUnavailable
				}
				return l.Store.Commit(ctx, t)
			}
		}},
	}
}

// without commits transactions less some of their guards.
func (l *liar) without(drop func(i int, g dcs.Guard) bool) func(context.Context, dcs.Txn) (events.Revision, error) {
	return func(ctx context.Context, t dcs.Txn) (events.Revision, error) {
		var kept []dcs.Guard
		for i, g := range t.Guards {
			if !drop(i, g) {
				kept = append(kept, g)
			}
		}
		t.Guards = kept
		return l.Store.Commit(ctx, t)
	}
}

func leaseLies() []lie {
	const onTime = "lease: ends on time, not before"
	longer := func(by func(time.Duration) time.Duration) func(l *liar, _ *Env) {
		return func(l *liar, _ *Env) {
			l.grant = func(ctx context.Context, id events.LeaseID, ttl time.Duration) (dcs.Lease, error) {
				lease, err := l.Store.Grant(ctx, id, max(0, by(ttl)))
				lease.TTL = ttl
				return lease, err
			}
		}
	}
	return []lie{
		{"a lease ends early", []string{
			onTime, "lease: renewed at its very end, it lives on or is gone", "history: linearizable, leases included",
		}, longer(func(ttl time.Duration) time.Duration { return ttl * 3 / 4 })},
		{"a lease ends late", []string{onTime}, longer(func(ttl time.Duration) time.Duration { return ttl + 1200*time.Millisecond })},
		{"the store renews by itself", []string{onTime}, func(l *liar, _ *Env) {
			l.grant = func(ctx context.Context, id events.LeaseID, ttl time.Duration) (dcs.Lease, error) {
				lease, err := l.Store.Grant(ctx, id, ttl)
				go func() { // until the property ends
					for ctx.Err() == nil {
						_, _ = l.Store.Renew(ctx, lease.ID)
						rest(ctx, ttl/4)
					}
				}()
				return lease, err
			}
		}},
		{"a renewal is acknowledged and not done", []string{
			"lease: renewing keeps it, and lists its keys", "lease: renewed at its very end, it lives on or is gone",
			"history: linearizable, leases included",
		}, func(l *liar, _ *Env) {
			l.renew = func(ctx context.Context, id events.LeaseID) (dcs.Lease, error) {
				v, err := l.Store.View(ctx, dcs.Linearizable)
				lease := dcs.Lease{ID: id, TTL: 200 * time.Millisecond}
				for _, kv := range v.KVs {
					if kv.Lease == id {
						lease.Keys = append(lease.Keys, kv.Key)
					}
				}
				if len(lease.Keys) == 0 {
					return l.Store.Renew(ctx, id)
				}
				return lease, err
			}
		}},
		{"a renewal doesn't list the keys", []string{"lease: renewing keeps it, and lists its keys"}, func(l *liar, _ *Env) {
			l.renew = func(ctx context.Context, id events.LeaseID) (dcs.Lease, error) {
				lease, err := l.Store.Renew(ctx, id)
				lease.Keys = nil
				return lease, err
			}
		}},
		{"a write with a lease that is gone is kept without one", []string{
			"lease: a write with a lease that is gone is refused",
		}, func(l *liar, _ *Env) {
			l.commit = func(ctx context.Context, t dcs.Txn) (events.Revision, error) {
				rev, err := l.Store.Commit(ctx, t)
				if errors.Is(err, dcs.ErrRefused) && len(t.Guards) == 0 {
					t.Writes = slices.Clone(t.Writes)
					for i := range t.Writes {
						t.Writes[i].Lease = ""
					}
					return l.Store.Commit(ctx, t)
				}
				return rev, err
			}
		}},
		{"a key stays attached when it is written without a lease", []string{"lease: attaching and detaching"}, func(l *liar, _ *Env) {
			l.commit = func(ctx context.Context, t dcs.Txn) (events.Revision, error) {
				v, _ := l.Store.View(ctx, dcs.Linearizable)
				t.Writes = slices.Clone(t.Writes)
				for i, w := range t.Writes {
					if kv, ok := v.Get(w.Key); ok && w.Lease == "" && !w.Delete {
						t.Writes[i].Lease = kv.Lease
					}
				}
				return l.Store.Commit(ctx, t)
			}
		}},
		{"a revoked lease's keys stay", []string{"lease: revoking deletes its keys at once"}, func(l *liar, _ *Env) {
			l.revoke = func(context.Context, events.LeaseID) error { return nil }
		}},
		{"an id is granted twice", []string{"lease: ids"}, func(l *liar, _ *Env) {
			l.grant = func(ctx context.Context, id events.LeaseID, ttl time.Duration) (dcs.Lease, error) {
				lease, err := l.Store.Grant(ctx, id, ttl)
				if errors.Is(err, dcs.ErrRefused) {
					return dcs.Lease{ID: id, TTL: ttl}, nil
				}
				return lease, err
			}
		}},
		{"a client that is closed takes its leases with it", []string{"close: leases and keys stay, calls fail"}, func(l *liar, _ *Env) {
			var mine events.LeaseID
			l.grant = func(ctx context.Context, id events.LeaseID, ttl time.Duration) (dcs.Lease, error) {
				lease, err := l.Store.Grant(ctx, id, ttl)
				mine = lease.ID
				return lease, err
			}
			l.close = func() error {
				_ = l.Store.Revoke(context.Background(), mine)
				return l.Store.Close()
			}
		}},
	}
}

func faultLies() []lie {
	const (
		killed   = "fault: the leader is killed: nothing is lost, watches go on"
		leases   = "fault: the leader is killed: leases end neither early nor late"
		minority = "fault: a minority is cut off: it shows nothing stale, the others go on"
		nobody   = "fault: no majority: calls end in time and claim nothing"
		lost     = "fault: a lost reply is an unknown outcome, of something done once"
	)
	// whenKilled does something to the content at the moment when the leader dies.
	whenKilled := func(do func(s dcs.Store, v dcs.View)) func(l *liar, env *Env) {
		return func(l *liar, env *Env) {
			faults := env.Faults
			env.Faults = meddler{faults, func(k Kind, target int) (func() error, error) {
				heal, err := faults.Inflict(k, target)
				survivor := env.Stores[len(env.Stores)-1]
				if v, errView := survivor.View(context.Background(), dcs.Linearizable); k == KillServer && errView == nil {
					do(survivor, v)
				}
				return heal, err
			}}
		}
	}
	return []lie{
		{"an acknowledged write dies with the leader", []string{killed}, whenKilled(func(s dcs.Store, v dcs.View) {
			for _, kv := range v.KVs {
				if strings.HasSuffix(kv.Key, "before") {
					_, _ = s.Commit(context.Background(), dcs.Txn{Writes: []dcs.Write{{Key: kv.Key, Delete: true}}})
				}
			}
		})},
		{"leases die with the leader", []string{leases}, whenKilled(func(s dcs.Store, v dcs.View) {
			for _, kv := range v.KVs {
				_ = s.Revoke(context.Background(), kv.Lease)
			}
		})},
		{"a client that is cut off shows what it saw last", []string{minority, nobody}, func(l *liar, _ *Env) {
			l.view = func(ctx context.Context, c dcs.Consistency) (dcs.View, error) {
				if v, err := l.Store.View(ctx, c); err == nil {
					return v, nil
				}
				return l.Store.View(ctx, dcs.Local)
			}
		}},
		{"who is cut off calls it a refusal", []string{minority, nobody}, func(l *liar, _ *Env) {
			l.renew = func(ctx context.Context, id events.LeaseID) (dcs.Lease, error) {
				lease, err := l.Store.Renew(ctx, id)
				if errors.Is(err, dcs.ErrUnavailable) {
					err = dcs.ErrRefused
				}
				return lease, err
			}
		}},
		{"a call outlives its deadline", []string{nobody}, func(l *liar, env *Env) {
			l.grant = func(ctx context.Context, id events.LeaseID, ttl time.Duration) (dcs.Lease, error) {
				lease, err := l.Store.Grant(ctx, id, ttl)
				if err != nil {
					rest(context.Background(), 2*env.Overrun)
				}
				return lease, err
			}
		}},
		{"a thawed server answers from before", []string{"fault: the leader stands still: thawed, it claims nothing old"}, func(l *liar, env *Env) {
			l.view = func(ctx context.Context, c dcs.Consistency) (dcs.View, error) {
				began := time.Now()
				v, err := l.Store.View(ctx, c)
				if err == nil && time.Since(began) > env.TTL {
					v.KVs = slices.Clone(v.KVs)
					for i := range v.KVs {
						v.KVs[i].Value = []byte("old")
					}
				}
				return v, err
			}
		}},
		{"an unknown outcome is said to be none", []string{lost}, func(l *liar, _ *Env) {
			l.commit = func(ctx context.Context, t dcs.Txn) (events.Revision, error) {
				rev, err := l.Store.Commit(ctx, t)
				if errors.Is(err, dcs.ErrUnknown) {
					err = dcs.ErrUnavailable
				}
				return rev, err
			}
		}},
		{"a lost reply is answered by doing it again, guarded by what is there now", []string{lost}, func(l *liar, env *Env) {
			l.commit = func(ctx context.Context, t dcs.Txn) (events.Revision, error) {
				rev, err := l.Store.Commit(ctx, t)
				if errors.Is(err, dcs.ErrUnknown) {
					again := dcs.Put(t.Writes[0].Key, append(slices.Clone(t.Writes[0].Value), '+'))
					_, _ = env.Stores[1].Commit(ctx, dcs.Txn{Writes: []dcs.Write{again}})
				}
				return rev, err
			}
		}},
		{"a write is acknowledged before it is safe", []string{
			"fault: histories under random faults are linearizable, leases included",
		}, func(l *liar, _ *Env) {
			l.commit = func(ctx context.Context, t dcs.Txn) (events.Revision, error) {
				rev, err := l.Store.Commit(ctx, t)
				if errors.Is(err, dcs.ErrUnavailable) && t.Validate() == nil {
					if v, errView := l.Store.View(ctx, dcs.Local); errView == nil {
						return v.Revision + 1, nil
					}
				}
				return rev, err
			}
		}},
	}
}
