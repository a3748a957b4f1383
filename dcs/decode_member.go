package dcs

import (
	"encoding/json"
	"net/url"
	"sort"
	"strings"

	"github.com/pgregent/regent/events"
)

// decodeMember never fails: a member whose value can't be read exists by its name,
// with nothing else known about it, and so is no candidate for anything.
func decodeMember(name events.NodeName, kv KV) events.Member {
	m := events.Member{Name: name, Lease: kv.Lease, Tags: events.Tags{FailoverPriority: 1}}
	doc := ofRaw(kv.Value)
	if doc.kind != mapping {
		m.ConnURL, m.APIURL = splitConnURL(string(kv.Value))
		return m
	}
	m.ConnURL = doc.get("conn_url").str()
	m.APIURL = doc.get("api_url").str()
	m.State = doc.get("state").str()
	m.Role = doc.get("role").str()
	m.Version = doc.get("version").str()
	m.Regent = doc.get(fieldRegent).str()
	if m.Regent != "" {
		m.HandOff = events.LeaseID(doc.get(fieldHandOff).str())
		m.Barred, m.Orphan = doc.get(fieldBarred).str(), events.NodeName(doc.get(fieldOrphan).str())
		m.Move = doc.get(fieldMemberMove).str()
		m.Unfit, m.Unfenced = doc.get(fieldUnfit).str(), doc.get(fieldUnfenced).str()
	}
	if lsn, ok := doc.get("xlog_location").integer(); ok {
		m.XLogLocation = toLSN(lsn)
	}
	if lsn, ok := doc.get("receive_lsn").integer(); ok {
		m.ReceiveLSN = toLSN(lsn)
	}
	if lsn, ok := doc.get("replay_lsn").integer(); ok {
		m.ReplayLSN = toLSN(lsn)
	}
	m.ReplicationState = doc.get("replication_state").str()
	if tl, ok := doc.get("timeline").integer(); ok && tl > 0 && tl < 1<<32 {
		m.Timeline = events.Timeline(tl)
	}
	m.CheckpointPending = doc.has("checkpoint_after_promote") && !doc.get("checkpoint_after_promote").truthy()
	m.PendingRestart = doc.get("pending_restart").truthy()
	m.Pause = doc.get("pause").truthy()
	if tags := doc.get("tags"); tags.kind == mapping {
		m.Tags = decodeTags(tags)
	}
	return m
}

// splitConnURL reads the oldest form of a member's value: a connection URL that
// carries the API's address as application_name.
func splitConnURL(s string) (conn, api string) {
	if !strings.HasPrefix(s, "postgres://") && !strings.HasPrefix(s, "postgresql://") {
		return "", ""
	}
	u, err := url.Parse(s)
	if err != nil {
		return "", ""
	}
	query := u.Query()
	api = query.Get("application_name")
	query.Del("application_name")
	u.RawQuery = query.Encode()
	return u.String(), api
}

// decodeTags applies the rules by which nofailover and failover_priority, and the
// like for synchronous replication, override each other: the flag wins when present.
func decodeTags(tags value) events.Tags {
	t := events.Tags{
		FailoverPriority: 1,
		NoLoadBalance:    isOn(tags.get("noloadbalance")),
		CloneFrom:        isOn(tags.get("clonefrom")),
		NoStream:         isOn(tags.get("nostream")),
		ReplicateFrom:    events.NodeName(tags.get("replicatefrom").str()),
		Raw:              sortedJSON(tags),
	}
	if n, ok := tags.get("failover_priority").integer(); ok {
		t.FailoverPriority = int(max(min(n, 1<<30), -1<<30))
	}
	t.NoFailover = t.FailoverPriority <= 0
	if tags.has("nofailover") {
		t.NoFailover = isOn(tags.get("nofailover"))
	}
	if n, ok := tags.get("sync_priority").integer(); ok {
		t.NoSync, t.SyncPriority = n <= 0, int(max(min(n, 1<<30), 0))
	}
	if tags.has("nosync") {
		t.NoSync = isOn(tags.get("nosync"))
	}
	return t
}

// isOn reads a flag as configuration files spell it; anything unknown is off.
func isOn(v value) bool {
	switch v.kind {
	case boolean:
		return v.truth
	case text:
		switch strings.ToLower(v.text) {
		case "on", "true", "yes", "1":
			return true
		}
	case number:
		return v.text == "1"
	}
	return false
}

func sortedJSON(v value) json.RawMessage {
	keys := append([]string(nil), v.keys...)
	sort.Strings(keys)
	out := object()
	for _, key := range keys {
		out.set(key, v.get(key))
	}
	return out.bytes()
}
