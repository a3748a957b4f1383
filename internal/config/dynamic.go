package config

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"
)

// Dynamic is the shared configuration: the contents of /config with defaults for what
// is missing or wrong. It is a value; the parts that are raw must not be changed.
type Dynamic struct {
	// TTL, LoopWait and RetryTimeout as written. What binds is Timings.
	TTL, LoopWait, RetryTimeout time.Duration

	// Lags are in bytes; MaximumLagOnSyncnode of 0 or less means no limit.
	MaximumLagOnFailover, MaximumLagOnSyncnode int64
	MaxTimelinesHistory                        int // 0 keeps all
	CheckTimeline                              bool

	// PrimaryStartTimeout of 0 fails over at once.
	PrimaryStartTimeout, PrimaryStopTimeout, PrimaryRaceBackoff time.Duration

	// SynchronousMode is "off", "on" or "quorum".
	SynchronousMode       string
	SynchronousModeStrict bool
	SynchronousNodeCount  int

	FailsafeMode bool
	Pause        bool

	// StandbyCluster, Slots and IgnoreSlots are JSON, nil when absent.
	StandbyCluster, Slots, IgnoreSlots json.RawMessage
	MemberSlotsTTL                     time.Duration
	UseSlots                           bool

	// StopWait is regent.stop_wait: how long a hand-over waits for a candidate to
	// flush the old primary's last WAL.
	StopWait time.Duration

	fencing Fencing // as shared; empty: each member's file decides
	root    *tree   // normalized
}

// Fencing is what holds for a member with that file.
func (d Dynamic) Fencing(local *Config) Fencing {
	if d.fencing != "" {
		return d.fencing
	}
	return local.Regent.Fencing
}

// ParseDynamic reads the contents of /config, or of bootstrap.dcs, as leniently as
// Patroni does: a bad value gives its default and a Warning. Fractions of seconds and
// units are allowed. An Error among the problems means that this configuration must not
// be taken up: it is no JSON mapping, or promises safety that this release can't give.
// At start that refuses the start; later the one in force stays. The returned Dynamic
// is usable in any case. Empty raw is an empty mapping.
func ParseDynamic(raw json.RawMessage) (Dynamic, []Problem) {
	if len(raw) == 0 {
		raw = json.RawMessage("{}")
	}
	t, err := parseMapping(raw)
	if err != nil {
		p := Problem{Path: "/config", Message: "can't be read: " + err.Error(), Hint: "repair it with edit-config", Severity: Error}
		return decodeDynamic(newMap(pos{})), []Problem{p}
	}
	t = normalizeDynamic(t)
	return decodeDynamic(t), checkDynamic(t, "")
}

// checkDynamic runs the table, the promises and the rules of parameters over a
// normalized shared configuration.
func checkDynamic(t *tree, prefix string) []Problem {
	c := checker{index: dynamicIndex, prefix: prefix, skip: func(path string) bool {
		name, ok := strings.CutPrefix(path, "postgresql.")
		return ok && strings.Contains(localOnly, " "+name+" ") // told by checkSharedPostgresql
	}}
	c.section("", t)
	problems := append(c.problems, checkPromises(t, prefix, true)...)
	problems = append(problems, checkFailsafe(t, prefix)...)
	if pg := t.get("postgresql"); pg != nil && pg.kind == kindMap {
		problems = append(problems, checkSharedPostgresql(pg, prefix+"postgresql")...)
	}
	return problems
}

// failsafeTTL is the least ttl with failsafe mode. All members are asked, again if need be,
// between the half of the belief and its end (safety rule S12).
const failsafeTTL = 5 * time.Second

func checkFailsafe(t *tree, prefix string) []Problem {
	mode := t.get("failsafe_mode")
	d := decodeDynamic(t)
	if !d.FailsafeMode || d.TTL >= failsafeTTL {
		return nil
	}
	p := problemAt(mode.position(), Error, prefix+"failsafe_mode",
		fmt.Sprintf("needs a ttl of at least %v, and ttl is %v: the members could not be asked in time", failsafeTTL, d.TTL),
		"raise ttl, or set failsafe_mode to false")
	p.Value = mode.display()
	return []Problem{p}
}

func decodeDynamic(t *tree) Dynamic {
	number := func(path string, def int64) int64 {
		row, _ := dynamicIndex.row(path)
		return size(t.at(path), def, row.limits)
	}
	period := func(path string, def time.Duration) time.Duration {
		row, _ := dynamicIndex.row(path)
		return seconds(t.at(path), def, row.limits)
	}
	raw := func(path string) json.RawMessage {
		if v := t.at(path); !v.isNull() && v.kind >= kindList {
			return appendJSON(nil, v)
		}
		return nil
	}
	return Dynamic{
		TTL:                   period("ttl", 30*time.Second),
		LoopWait:              period("loop_wait", 10*time.Second),
		RetryTimeout:          period("retry_timeout", 10*time.Second),
		MaximumLagOnFailover:  number("maximum_lag_on_failover", 1048576),
		MaximumLagOnSyncnode:  number("maximum_lag_on_syncnode", -1),
		MaxTimelinesHistory:   int(min(number("max_timelines_history", 0), math.MaxInt32)),
		CheckTimeline:         boolean(t.get("check_timeline"), false),
		PrimaryStartTimeout:   period("primary_start_timeout", 300*time.Second),
		PrimaryStopTimeout:    period("primary_stop_timeout", 0),
		PrimaryRaceBackoff:    period("primary_race_backoff", 0),
		SynchronousMode:       word(dynamicIndex, "synchronous_mode", t),
		SynchronousModeStrict: boolean(t.get("synchronous_mode_strict"), false),
		SynchronousNodeCount:  int(min(number("synchronous_node_count", 1), math.MaxInt32)),
		FailsafeMode:          boolean(t.get("failsafe_mode"), false),
		Pause:                 boolean(t.get("pause"), false),
		StandbyCluster:        raw("standby_cluster"),
		Slots:                 raw("slots"),
		IgnoreSlots:           raw("ignore_slots"),
		MemberSlotsTTL:        period("member_slots_ttl", 30*time.Minute),
		UseSlots:              boolean(t.at("postgresql.use_slots"), true),
		StopWait:              period("regent.stop_wait", 10*time.Second),
		fencing:               Fencing(word(dynamicIndex, "regent.fencing", t)),
		root:                  t,
	}
}

// Timings are the three periods in force.
type Timings struct {
	TTL, LoopWait, RetryTimeout time.Duration
}

// TimingRule says which rules bind the timings.
type TimingRule struct {
	// Patroni: a member of the cluster is a Patroni, so its floors and its rule
	// loop_wait + 2·retry_timeout ≤ ttl bind everybody (safety rule S7).
	Patroni bool
	// Store is the section's name: raft, etcd3 or consul. It sets the floor of ttl.
	Store string
}

// Timings returns the periods in force under a rule, with a Warning for each one that
// had to be changed. What /config says stays as the operator wrote it.
func (d Dynamic) Timings(rule TimingRule) (Timings, []Problem) {
	t := Timings{d.TTL, d.LoopWait, d.RetryTimeout}
	asked := map[string]time.Duration{"ttl": d.TTL, "loop_wait": d.LoopWait, "retry_timeout": d.RetryTimeout}
	var problems []Problem
	adjust := func(path string, v *time.Duration, to time.Duration, why string) {
		p := problemAt(d.root.get(path).position(), Warning, path, fmt.Sprintf("is used as %v: %s", to, why), "")
		p.Value = asked[path].String()
		problems = append(problems, p)
		*v = to
	}
	if rule.Patroni {
		t = Timings{t.TTL.Truncate(time.Second), t.LoopWait.Truncate(time.Second), t.RetryTimeout.Truncate(time.Second)}
		clampLikePatroni(&t, adjust)
		return t, problems
	}
	floor, advised, why := ttlFloor(rule.Store)
	if t.TTL < floor {
		adjust("ttl", &t.TTL, floor, why)
	} else if t.TTL < advised {
		p := problemAt(d.root.get("ttl").position(), Warning, "ttl", fmt.Sprintf("is below %v: %s", advised, why), "")
		p.Value = t.TTL.String()
		problems = append(problems, p)
	}
	const least = 100 * time.Millisecond
	if t.LoopWait < least {
		adjust("loop_wait", &t.LoopWait, least, "a faster heartbeat only costs work")
	}
	if t.RetryTimeout < least {
		adjust("retry_timeout", &t.RetryTimeout, least, "a call needs some time")
	}
	return t, problems
}

// ttlFloor gives the least ttl, the least that is advised, and the reason.
func ttlFloor(store string) (floor, advised time.Duration, why string) {
	switch store {
	case "consul":
		return 20 * time.Second, 20 * time.Second, "Consul's sessions last 10 s at least, and twice that in effect"
	case "etcd3", "etcd":
		return 2 * time.Second, 5 * time.Second, "the primary stops when etcd changes its leader"
	default:
		return time.Second, 2 * time.Second, "a short stall of a node ends its lease"
	}
}

func clampLikePatroni(t *Timings, adjust func(path string, v *time.Duration, to time.Duration, why string)) {
	for _, f := range []struct {
		path string
		v    *time.Duration
		min  time.Duration
	}{{"ttl", &t.TTL, 20 * time.Second}, {"loop_wait", &t.LoopWait, time.Second}, {"retry_timeout", &t.RetryTimeout, 3 * time.Second}} {
		if *f.v < f.min {
			adjust(f.path, f.v, f.min, "Patroni's least value binds while a member is a Patroni")
		}
	}
	if t.LoopWait+2*t.RetryTimeout <= t.TTL {
		return
	}
	const why = "loop_wait + 2·retry_timeout must not exceed ttl while a member is a Patroni"
	if rest := t.TTL - 2*t.RetryTimeout; rest >= time.Second {
		adjust("loop_wait", &t.LoopWait, rest, why)
		return
	}
	if t.LoopWait != time.Second {
		adjust("loop_wait", &t.LoopWait, time.Second, why)
	}
	adjust("retry_timeout", &t.RetryTimeout, ((t.TTL - time.Second) / 2).Truncate(time.Second), why)
}
