package dcs

import (
	"encoding/json"
	"sort"
	"strconv"
	"strings"

	"github.com/pgregent/regent/events"
)

// MemberData is what a member publishes under its key. Zero values are left out of
// the JSON, except for the first five fields, which Patroni always writes.
type MemberData struct {
	ConnURL string // postgres://HOST:PORT/DATABASE, no credentials
	APIURL  string // http(s)://HOST:PORT/patroni
	State   string
	Role    string
	// Version is dotted integers: readers branch on it, and it is never Regent's own.
	Version  string
	ProxyURL string
	// CheckpointPending writes checkpoint_after_promote:false; true is never written.
	CheckpointPending bool
	// Tags as configured, a JSON mapping; see PublishedTags.
	Tags                 json.RawMessage
	PendingRestart       bool
	PendingRestartReason json.RawMessage
	XLogLocation         events.LSN
	ReplayLSN            events.LSN
	ReceiveLSN           events.LSN
	ReplicationState     string
	Timeline             events.Timeline
	ScheduledRestart     json.RawMessage
	Pause                bool

	// Regent is the member's Regent version. It and what follows are fields that
	// Patroni ignores; without it a reader takes the member for a Patroni.
	Regent string
	// HandOff is the lease that the leader key may be moved to (safety rule S15).
	HandOff events.LeaseID
	// Unfit says why the member's last promotion failed, Unfenced why its primary runs
	// without a fence deadline.
	Unfit, Unfenced string
	// Barred says why the member can't lead as its host is.
	Barred string
	// Orphan is a primary that the member found running while nobody leads.
	Orphan events.NodeName
	// Move is the epoch of the move whose target the member has reached.
	Move string
	// Extra fields follow in the order given.
	Extra []Field
}

// Field is one more field of a member's JSON.
type Field struct {
	Name  string
	Value json.RawMessage
}

// EncodeMember writes a member's value: Patroni's fields in Patroni's order, ours after.
func EncodeMember(m MemberData) []byte {
	v := object().
		with("conn_url", ofString(m.ConnURL)).
		with("api_url", ofString(m.APIURL)).
		with("state", ofString(m.State)).
		with("role", ofString(m.Role)).
		with("version", ofString(m.Version))
	withText(v, "proxy_url", m.ProxyURL)
	if m.CheckpointPending {
		v.set("checkpoint_after_promote", ofBool(false))
	}
	if tags := ofRaw(m.Tags); tags.kind == mapping && len(tags.keys) > 0 {
		v.set("tags", tags)
	}
	withFlag(v, "pending_restart", m.PendingRestart)
	withRaw(v, "pending_restart_reason", m.PendingRestartReason)
	withLSN(v, "xlog_location", m.XLogLocation)
	withLSN(v, "replay_lsn", m.ReplayLSN)
	withLSN(v, "receive_lsn", m.ReceiveLSN)
	withText(v, "replication_state", m.ReplicationState)
	if m.Timeline != 0 {
		v.set("timeline", ofUint(uint64(m.Timeline)))
	}
	withRaw(v, "scheduled_restart", m.ScheduledRestart)
	withFlag(v, "pause", m.Pause)
	withText(v, fieldRegent, m.Regent)
	withText(v, fieldHandOff, string(m.HandOff))
	withText(v, fieldUnfit, m.Unfit)
	withText(v, fieldUnfenced, m.Unfenced)
	withText(v, fieldBarred, m.Barred)
	withText(v, fieldOrphan, string(m.Orphan))
	withText(v, fieldMemberMove, m.Move)
	for _, f := range m.Extra {
		withRaw(v, f.Name, f.Value)
	}
	return v.bytes()
}

// Our own fields of a member.
const (
	fieldRegent   = "regent"
	fieldHandOff  = "regent_lease"
	fieldUnfit    = "regent_unfit"
	fieldUnfenced = "regent_unfenced"
	fieldBarred   = "regent_barred"
	fieldOrphan   = "regent_orphan"
)

func withText(v *value, key, s string) {
	if s != "" {
		v.set(key, ofString(s))
	}
}

func withFlag(v *value, key string, on bool) {
	if on {
		v.set(key, ofBool(true))
	}
}

func withLSN(v *value, key string, lsn events.LSN) {
	if lsn != 0 {
		v.set(key, ofUint(uint64(lsn)))
	}
}

func withRaw(v *value, key string, raw json.RawMessage) {
	if item := ofRaw(raw); item.kind != null {
		v.set(key, item)
	}
}

// PublishedTags filters configured tags as Patroni does before it publishes them:
// well-known flags that are off are hidden, unless a priority stands beside them
// that they override. The result is nil when nothing is left.
func PublishedTags(configured json.RawMessage) json.RawMessage {
	tags := ofRaw(configured)
	if tags.kind != mapping {
		return nil
	}
	out := object()
	for i, key := range tags.keys {
		switch key {
		case "clonefrom", "noloadbalance", "nostream":
			if !tags.items[i].truthy() {
				continue
			}
		case "nofailover":
			if !tags.items[i].truthy() && !tags.has("failover_priority") {
				continue
			}
		case "nosync":
			if !tags.items[i].truthy() && !tags.has("sync_priority") {
				continue
			}
		}
		out.set(key, tags.items[i])
	}
	if len(out.keys) == 0 {
		return nil
	}
	return out.bytes()
}

// StatusData is what the holder publishes under KeyStatus.
type StatusData struct {
	Optime events.LSN
	// Slots are positions by slot name; nil leaves the field out.
	Slots map[string]events.LSN
	// RetainSlots are the names of slots to keep; nil leaves the field out.
	RetainSlots []string
}

// EncodeStatus writes the status key's value. Fields of prev, the value in the
// store, that we don't know or don't set are kept, after ours.
func EncodeStatus(prev []byte, s StatusData) []byte {
	v := object().with("optime", ofUint(uint64(s.Optime)))
	old := ofRaw(prev)
	if s.Slots != nil {
		slots := object()
		names := make([]string, 0, len(s.Slots))
		for name := range s.Slots {
			names = append(names, name)
		}
		sort.Strings(names)
		for _, name := range names {
			slots.set(name, ofUint(uint64(s.Slots[name])))
		}
		v.set("slots", *slots)
	} else if old.has("slots") {
		v.set("slots", old.get("slots"))
	}
	if s.RetainSlots != nil {
		retain := value{kind: list}
		names := append([]string(nil), s.RetainSlots...)
		sort.Strings(names)
		for _, name := range names {
			retain.items = append(retain.items, ofString(name))
		}
		v.set("retain_slots", retain)
	} else if old.has("retain_slots") {
		v.set("retain_slots", old.get("retain_slots"))
	}
	for i, key := range old.keys {
		if !v.has(key) {
			v.set(key, old.items[i])
		}
	}
	return v.bytes()
}

// EncodeOptime writes KeyOptime's value, for members older than Patroni 2.1.
func EncodeOptime(lsn events.LSN) []byte {
	return strconv.AppendUint(nil, uint64(lsn), 10)
}

// EncodeSync writes the sync key's value; standbys are sorted and joined.
func EncodeSync(leader events.NodeName, quorum int, standbys []events.NodeName) []byte {
	names := make([]string, len(standbys))
	for i, name := range standbys {
		names[i] = string(name)
	}
	sort.Strings(names)
	joined := value{}
	if len(names) > 0 {
		joined = ofString(strings.Join(names, ","))
	}
	return object().
		with("leader", ofString(string(leader))).
		with("quorum", ofInt(int64(quorum))).
		with("sync_standby", joined).bytes()
}

// EncodeFailover writes the failover key's value. The zero request is "{}", which
// is how a request is cleared: the key is kept.
func EncodeFailover(f events.FailoverRequest) []byte {
	v := object()
	withText(v, "leader", string(f.Leader))
	withText(v, "member", string(f.Candidate))
	withText(v, "scheduled_at", f.ScheduledAt)
	return v.bytes()
}

// EncodeHistory writes the history key's value. Lines without a time or a new
// leader keep the three or four columns that older versions wrote.
func EncodeHistory(lines []events.HistoryLine) []byte {
	v := value{kind: list}
	for _, l := range lines {
		row := value{kind: list, items: []value{
			ofUint(uint64(l.Timeline)), ofUint(uint64(l.LSN)), ofString(l.Reason),
		}}
		if l.Timestamp != "" || l.NewLeader != "" {
			row.items = append(row.items, ofString(l.Timestamp))
		}
		if l.NewLeader != "" {
			row.items = append(row.items, ofString(string(l.NewLeader)))
		}
		v.items = append(v.items, row)
	}
	return v.bytes()
}

// EncodeInitialize writes the initialize key's value once the identifier is known.
func EncodeInitialize(id events.SystemID) []byte { return []byte(id) }

// EncodeFailsafe writes the failsafe key's value: API addresses by member, sorted.
func EncodeFailsafe(apiURLs map[events.NodeName]string) []byte {
	names := make([]string, 0, len(apiURLs))
	for name := range apiURLs {
		names = append(names, string(name))
	}
	sort.Strings(names)
	v := object()
	for _, name := range names {
		v.set(name, ofString(apiURLs[events.NodeName(name)]))
	}
	return v.bytes()
}
