package dcs

import (
	"encoding/json"
	"sort"
	"strings"

	"github.com/pgregent/regent/events"
)

// Decode reads a View as the cluster it describes. It accepts every form that
// Patroni reads, old ones included, and never fails: what can't be read counts as
// absent or empty, the way Patroni treats it.
func Decode(v View) events.ClusterView {
	out := events.ClusterView{Revision: v.Revision, Age: v.Age}
	for _, kv := range v.KVs {
		switch kv.Key {
		case KeyLeader:
			out.Leader = decodeLeader(kv)
		case KeyConfig:
			out.Config, out.Move = decodeConfig(kv), decodeMove(kv)
		case KeySync:
			out.Sync = decodeSync(kv)
		case KeyFailover:
			out.Failover = decodeFailover(kv)
		case KeyHistory:
			out.History = decodeHistory(kv)
		case KeyFailsafe:
			out.Failsafe = decodeFailsafe(kv)
		default:
			if name, ok := MemberName(kv.Key); ok {
				out.Members = append(out.Members, decodeMember(name, kv))
			}
		}
	}
	out.Initialize = decodeInitialize(v)
	out.Status = decodeStatus(v)
	sort.Slice(out.Members, func(i, j int) bool { return out.Members[i].Name < out.Members[j].Name })
	return out
}

func decodeLeader(kv KV) events.Leader {
	return events.Leader{
		Name: events.NodeName(kv.Value), Lease: kv.Lease, Created: kv.Created, Version: kv.Version,
	}
}

// decodeInitialize also finds the bootstrapper, whose name counts only when it was
// written together with the empty key (see KeyBootstrap).
func decodeInitialize(v View) events.Initialize {
	kv, ok := v.Get(KeyInitialize)
	if !ok {
		return events.Initialize{}
	}
	out := events.Initialize{Version: kv.Version, SystemID: events.SystemID(kv.Value)}
	if claim, ok := v.Get(KeyBootstrap); ok && out.SystemID == "" && claim.Version == kv.Version {
		out.By = events.NodeName(ofRaw(claim.Value).get("by").str())
	}
	return out
}

func decodeConfig(kv KV) events.DynamicConfig {
	if ofRaw(kv.Value).kind != mapping {
		return events.DynamicConfig{Broken: kv.Version}
	}
	return events.DynamicConfig{Version: kv.Version, Raw: json.RawMessage(kv.Value)}
}

func decodeStatus(v View) events.Status {
	kv, ok := v.Get(KeyStatus)
	if !ok {
		// Before 2.1 the position stood alone, in a key of its own.
		old, _ := v.Get(KeyOptime)
		lsn, _ := ofRaw(old.Value).integer()
		return events.Status{Optime: toLSN(lsn)}
	}
	out := events.Status{Version: kv.Version}
	doc := ofRaw(kv.Value)
	if doc.kind == number {
		lsn, _ := doc.integer()
		out.Optime = toLSN(lsn)
		return out
	}
	lsn, _ := doc.get("optime").integer()
	out.Optime = toLSN(lsn)
	retain := doc.get("retain_slots")
	if retain.kind == text { // a JSON text inside JSON is accepted as well
		retain = ofRaw([]byte(retain.text))
	}
	if retain.kind == list {
		for _, item := range retain.items {
			if item.str() != "" {
				out.RetainSlots = append(out.RetainSlots, item.str())
			}
		}
		sort.Strings(out.RetainSlots)
	}
	return out
}

func toLSN(n int64) events.LSN {
	if n < 0 {
		return 0
	}
	return events.LSN(n)
}

func decodeSync(kv KV) events.Sync {
	out := events.Sync{Version: kv.Version}
	doc := ofRaw(kv.Value)
	leader := doc.get("leader").str()
	if leader == "" {
		return out // without a leader the rest says nothing
	}
	out.Leader = events.NodeName(leader)
	for _, name := range strings.Split(doc.get("sync_standby").str(), ",") {
		if name = strings.TrimSpace(name); name != "" {
			out.Standbys = append(out.Standbys, events.NodeName(name))
		}
	}
	if n, ok := doc.get("quorum").integer(); ok && n > 0 && n <= int64(len(kv.Value)) {
		out.Quorum = int(n)
	}
	return out
}

func decodeFailover(kv KV) events.FailoverRequest {
	out := events.FailoverRequest{Version: kv.Version}
	doc, err := parse(kv.Value)
	if err != nil {
		// The form before JSON: leader:candidate, either may be missing.
		leader, candidate, ok := strings.Cut(string(kv.Value), ":")
		if ok && !strings.ContainsAny(string(kv.Value), "{}[]\"") {
			out.Leader = events.NodeName(strings.TrimSpace(leader))
			out.Candidate = events.NodeName(strings.TrimSpace(candidate))
		}
		return out
	}
	out.Leader = events.NodeName(doc.get("leader").str())
	out.Candidate = events.NodeName(doc.get("member").str())
	if out.Pending() {
		out.ScheduledAt = doc.get("scheduled_at").str()
	}
	return out
}

// decodeFailsafe reads the members that are to be asked; names without an address count.
func decodeFailsafe(kv KV) events.Failsafe {
	out := events.Failsafe{Version: kv.Version}
	doc := ofRaw(kv.Value)
	if doc.kind != mapping {
		return out
	}
	for i, name := range doc.keys {
		out.Members = append(out.Members, events.FailsafeMember{Name: events.NodeName(name), APIURL: doc.items[i].str()})
	}
	sort.Slice(out.Members, func(i, j int) bool { return out.Members[i].Name < out.Members[j].Name })
	return out
}

// decodeHistory keeps Version at zero when the value, or its last line, can't be
// read: the cluster's timeline is then unknown, not 1.
func decodeHistory(kv KV) events.History {
	doc := ofRaw(kv.Value)
	if doc.kind != list {
		return events.History{}
	}
	out := events.History{Version: kv.Version, Raw: json.RawMessage(kv.Value)}
	for i, row := range doc.items {
		line, ok := decodeHistoryLine(row)
		if ok {
			out.Lines = append(out.Lines, line)
		} else if i == len(doc.items)-1 {
			return events.History{}
		}
	}
	return out
}

func decodeHistoryLine(row value) (events.HistoryLine, bool) {
	if row.kind != list || len(row.items) < 3 {
		return events.HistoryLine{}, false
	}
	timeline, okTL := row.items[0].integer()
	lsn, okLSN := row.items[1].integer()
	if !okTL || !okLSN || timeline <= 0 || timeline >= 1<<32-1 || lsn < 0 {
		return events.HistoryLine{}, false
	}
	line := events.HistoryLine{
		Timeline: events.Timeline(timeline), LSN: toLSN(lsn), Reason: row.items[2].str(),
	}
	if len(row.items) > 3 {
		line.Timestamp = row.items[3].str()
	}
	if len(row.items) > 4 {
		line.NewLeader = events.NodeName(row.items[4].str())
	}
	return line, true
}
