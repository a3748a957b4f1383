package events

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"
)

// ClusterView is the decoded content of the store at one revision. Its parts are
// replaced as a whole by the next view and never changed in place, so a copy of
// the struct is a copy of the view.
type ClusterView struct {
	Revision Revision `json:"revision"`
	// Age bounds how stale the view was when it was read; negative means unknown.
	Age time.Duration `json:"age,omitempty"`
	// Initialize is the "initialize" key.
	Initialize Initialize `json:"initialize"`
	Leader     Leader     `json:"leader"`
	// Members, sorted by name.
	Members  []Member        `json:"members,omitempty"`
	Config   DynamicConfig   `json:"config"`
	Status   Status          `json:"status"`
	Sync     Sync            `json:"sync"`
	Failover FailoverRequest `json:"failover"`
	History  History         `json:"history"`
	Failsafe Failsafe        `json:"failsafe,omitzero"`
	// Move is what the config key says of a move to another store; nil: nothing.
	Move *StoreMove `json:"move,omitempty"`
}

// Member returns the member of that name.
func (v ClusterView) Member(name NodeName) (Member, bool) {
	for _, m := range v.Members {
		if m.Name == name {
			return m, true
		}
	}
	return Member{}, false
}

// Initialize is the "initialize" key: absent, empty (a bootstrap is under way) or
// the cluster's system identifier.
type Initialize struct {
	Version  Revision `json:"version,omitempty"` // 0: the key is absent
	SystemID SystemID `json:"system_id,omitempty"`
	// By names the bootstrapper while SystemID is empty, when Regent wrote the key.
	By NodeName `json:"by,omitempty"`
}

// Leader is the "leader" key; an absent key or an empty value is "unlocked".
type Leader struct {
	Name    NodeName `json:"name,omitempty"`
	Lease   LeaseID  `json:"lease,omitempty"`
	Created Revision `json:"created,omitempty"`
	Version Revision `json:"version,omitempty"`
}

// Locked reports whether some member holds the leader key.
func (l Leader) Locked() bool { return l.Name != "" }

// Member is a member key. Only what decisions need is typed; fields that Regent
// doesn't know stay in the store's value, which only their member rewrites.
type Member struct {
	Name    NodeName `json:"name"`
	Lease   LeaseID  `json:"lease,omitempty"`
	ConnURL string   `json:"conn_url,omitempty"`
	APIURL  string   `json:"api_url,omitempty"`
	State   string   `json:"state,omitempty"`
	Role    string   `json:"role,omitempty"` // as published; master and primary mean the same
	Version string   `json:"version,omitempty"`
	// Regent is the member's Regent version; empty means that it is a Patroni.
	Regent string `json:"regent,omitempty"`
	// HandOff is the lease to which the leader key may be moved (S15); empty if
	// the member doesn't take part in hand-off.
	HandOff      LeaseID `json:"hand_off,omitempty"`
	XLogLocation LSN     `json:"xlog_location,omitempty"`
	// ReceiveLSN and ReplayLSN of a standby, for people; decisions use XLogLocation.
	ReceiveLSN       LSN      `json:"receive_lsn,omitempty"`
	ReplayLSN        LSN      `json:"replay_lsn,omitempty"`
	ReplicationState string   `json:"replication_state,omitempty"`
	Timeline         Timeline `json:"timeline,omitempty"`
	// CheckpointPending: promoted, and the first checkpoint on the new timeline
	// isn't there yet; nobody may rewind from it (checkpoint_after_promote:false).
	CheckpointPending bool `json:"checkpoint_pending,omitempty"`
	PendingRestart    bool `json:"pending_restart,omitempty"`
	// PendingReason is what that restart would change, in Patroni's form; published only.
	PendingReason json.RawMessage `json:"pending_reason,omitempty"`
	Pause         bool            `json:"pause,omitempty"`
	// ScheduledRestart is a restart to come, in Patroni's form.
	ScheduledRestart json.RawMessage `json:"scheduled_restart,omitempty"`
	// Unfit says why the member's last promotion failed; empty: it did not. Others
	// need not wait for it in a race.
	Unfit string `json:"unfit,omitempty"`
	// Orphan is a primary that this member found alive in a race: nobody leads, and it takes
	// writes. Its own agent may be dead, so that nobody else tells of it.
	Orphan NodeName `json:"orphan,omitempty"`
	// Barred is why the member can't lead as its host is; empty: it can.
	Barred string `json:"barred,omitempty"`
	// Unfenced is why the member's primary runs without a fence deadline (WaivedPause,
	// WaivedFencingOff); empty: it has one, or needs none.
	Unfenced string `json:"unfenced,omitempty"`
	// Move is the epoch of the move between stores for which this member has reached
	// the target; empty: none.
	Move string `json:"move,omitempty"`
	Tags Tags   `json:"tags"`
}

// IsPrimary reports whether the member published that its PostgreSQL is a primary.
func (m Member) IsPrimary() bool { return m.Role == "primary" || m.Role == "master" }

// Tags of a member, decoded. Raw keeps them as published, sorted by key.
type Tags struct {
	NoFailover       bool            `json:"nofailover,omitempty"`
	FailoverPriority int             `json:"failover_priority,omitempty"` // 1 unless set
	NoLoadBalance    bool            `json:"noloadbalance,omitempty"`
	CloneFrom        bool            `json:"clonefrom,omitempty"`
	NoSync           bool            `json:"nosync,omitempty"`
	SyncPriority     int             `json:"sync_priority,omitempty"` // 0: not set, which means 1
	NoStream         bool            `json:"nostream,omitempty"`
	ReplicateFrom    NodeName        `json:"replicatefrom,omitempty"`
	Raw              json.RawMessage `json:"raw,omitempty"`
}

// DynamicConfig is the "config" key: the settings every member shares.
type DynamicConfig struct {
	Version Revision `json:"version,omitempty"` // 0: the key is absent or not a mapping
	// Raw is the key's value, a JSON mapping, as stored.
	Raw json.RawMessage `json:"raw,omitempty"`
	// Broken is the version of a key that is not a mapping; 0: there is none.
	Broken Revision `json:"broken,omitempty"`
}

// Stored is the key's version, whatever its value; 0: it is absent.
func (c DynamicConfig) Stored() Revision { return max(c.Version, c.Broken) }

// Status is the "status" key.
type Status struct {
	Version     Revision `json:"version,omitempty"`
	Optime      LSN      `json:"optime,omitempty"` // the holder's last known position
	RetainSlots []string `json:"retain_slots,omitempty"`
}

// Sync is the "sync" key. Names compare without case.
type Sync struct {
	Version  Revision   `json:"version,omitempty"`
	Leader   NodeName   `json:"leader,omitempty"`
	Standbys []NodeName `json:"standbys,omitempty"`
	Quorum   int        `json:"quorum,omitempty"`
}

// FailoverRequest is the "failover" key: an operator's wish, addressed to whoever leads.
type FailoverRequest struct {
	Version   Revision `json:"version,omitempty"`
	Leader    NodeName `json:"leader,omitempty"`    // set: switchover, from this leader
	Candidate NodeName `json:"candidate,omitempty"` // "member" in the key
	// ScheduledAt is the wish's time as written, RFC 3339; empty: now.
	ScheduledAt string `json:"scheduled_at,omitempty"`
}

// Pending reports whether there is a request.
func (f FailoverRequest) Pending() bool { return f.Leader != "" || f.Candidate != "" }

// History is the "history" key, Patroni's list of timeline switches.
type History struct {
	Version Revision        `json:"version,omitempty"`
	Lines   []HistoryLine   `json:"lines,omitempty"`
	Raw     json.RawMessage `json:"raw,omitempty"`
}

// HistoryLine is one switch: Timeline ended at LSN.
type HistoryLine struct {
	Timeline  Timeline `json:"timeline"`
	LSN       LSN      `json:"lsn"`
	Reason    string   `json:"reason,omitempty"`
	Timestamp string   `json:"timestamp,omitempty"`
	NewLeader NodeName `json:"new_leader,omitempty"`
}

// Timeline of the cluster: one more than the last switch's; 0 if unknown.
func (h History) Timeline() Timeline {
	if h.Version == 0 {
		return 0
	}
	if len(h.Lines) == 0 {
		return 1
	}
	return h.Lines[len(h.Lines)-1].Timeline + 1
}

// Upstream is where the member's PostgreSQL listens, from its conn_url
// (postgres://HOST:PORT/DB, IPv6 in brackets). False when there is none.
func (m Member) Upstream() (Upstream, bool) {
	rest, ok := strings.CutPrefix(m.ConnURL, "postgres://")
	if !ok {
		rest, ok = strings.CutPrefix(m.ConnURL, "postgresql://")
	}
	if !ok {
		return Upstream{}, false
	}
	rest, _, _ = strings.Cut(rest, "/")
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		rest = rest[at+1:]
	}
	host, port := rest, 5432
	if colon := strings.LastIndexByte(rest, ':'); colon > strings.LastIndexByte(rest, ']') {
		n, err := strconv.Atoi(rest[colon+1:])
		if err != nil {
			return Upstream{}, false
		}
		host, port = rest[:colon], n
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	return Upstream{Name: m.Name, Host: host, Port: port}, host != ""
}

// Addr is HOST:PORT, as observations of a standby's upstream print it.
func (u Upstream) Addr() string {
	if strings.Contains(u.Host, ":") {
		return "[" + u.Host + "]:" + strconv.Itoa(u.Port)
	}
	return u.Host + ":" + strconv.Itoa(u.Port)
}
