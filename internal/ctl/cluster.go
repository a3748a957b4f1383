package ctl

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/internal/ctl/pyfmt"
)

// cluster is a view of the store as operators see it.
type cluster struct {
	events.ClusterView
	name    string
	members []member
	config  pyfmt.Value
}

// member is a member with the parts of its key that only people read.
type member struct {
	events.Member
	doc  pyfmt.Value // the key's value; null when it is no mapping
	host string
	port int
}

func readCluster(name string, v dcs.View) cluster {
	c := cluster{ClusterView: dcs.Decode(v), name: name}
	if config, err := pyfmt.Parse(c.Config.Raw); err == nil {
		c.config = config
	}
	for _, m := range c.Members {
		out := member{Member: m}
		if kv, ok := v.Get(dcs.MemberKey(m.Name)); ok {
			if doc, err := pyfmt.Parse(kv.Value); err == nil && doc.IsObject() {
				out.doc = doc
			}
		}
		if up, ok := m.Upstream(); ok {
			out.host, out.port = up.Host, up.Port
		}
		c.members = append(c.members, out)
	}
	return c
}

// member returns the member of that name.
func (c cluster) member(name events.NodeName) (member, bool) {
	for _, m := range c.members {
		if m.Name == name {
			return m, true
		}
	}
	return member{}, false
}

// standbyCluster: the cluster follows another one.
func (c cluster) standbyCluster() bool {
	s := c.config.Get("standby_cluster")
	return s.Get("host").Truthy() || s.Get("port").Truthy() || s.Get("restore_command").Truthy()
}

func (c cluster) paused() bool { return isOn(c.config.Get("pause")) }

func (c cluster) quorumMode() bool {
	return strings.EqualFold(c.config.Get("synchronous_mode").Str(), "quorum")
}

func (c cluster) synchronous() bool {
	return c.quorumMode() || isOn(c.config.Get("synchronous_mode"))
}

// isOn reads a flag as configurations spell it.
func isOn(v pyfmt.Value) bool {
	switch strings.ToLower(v.Text()) {
	case "on", "true", "yes", "1":
		return true
	}
	return false
}

// inSync: commits wait for the member. Names compare without case.
func (c cluster) inSync(name events.NodeName) bool {
	for _, s := range c.Sync.Standbys {
		if strings.EqualFold(string(s), string(name)) {
			return true
		}
	}
	return false
}

// role is the word in the table. It comes from the store's keys, not from what the
// member says of itself.
func (c cluster) role(m member) string {
	switch {
	case m.Name == c.Leader.Name && c.standbyCluster():
		return "Standby Leader"
	case m.Name == c.Leader.Name:
		return "Leader"
	case c.inSync(m.Name) && c.quorumMode():
		return "Quorum Standby"
	case c.inSync(m.Name):
		return "Sync Standby"
	default:
		return "Replica"
	}
}

// state is the word in the table: what its replication does tells more about a replica
// than that its server runs.
func (c cluster) state(m member) string {
	if c.role(m) != "Leader" && m.ReplicationState != "" {
		return m.ReplicationState
	}
	return m.State
}

// orphan is a primary that others found running although nobody leads.
type orphan struct {
	name   string
	seenBy []string
}

func (c cluster) orphans() []orphan {
	if c.Leader.Locked() {
		return nil // what they found has passed
	}
	var out []orphan
	for _, m := range c.members {
		i := slices.IndexFunc(out, func(o orphan) bool { return o.name == string(m.Orphan) })
		switch {
		case m.Orphan == "":
		case i < 0:
			out = append(out, orphan{string(m.Orphan), []string{string(m.Name)}})
		default:
			out[i].seenBy = append(out[i].seenBy, string(m.Name))
		}
	}
	return out
}

// lagMB is how far a position is behind the holder's, in whole megabytes.
func (c cluster) lagMB(at events.LSN) pyfmt.Value {
	behind := uint64(0)
	if c.Status.Optime > at {
		behind = uint64(c.Status.Optime - at)
	}
	return pyfmt.Uint(roundMB(behind))
}

// roundMB rounds half to even, as Python does.
func roundMB(bytes uint64) uint64 {
	const mb = 1 << 20
	whole, rest := bytes/mb, bytes%mb
	if rest > mb/2 || rest == mb/2 && whole%2 == 1 {
		whole++
	}
	return whole
}

// lsn reads a position of the member's key; 0 when there is none.
func (m member) lsn(field string) events.LSN {
	n, _ := m.doc.Get(field).Uint64()
	return events.LSN(n)
}

// pendingReasons lists what waits for a restart, one line per parameter.
func (m member) pendingReasons() []string {
	var out []string
	reasons := m.doc.Get("pending_restart_reason")
	for _, name := range reasons.Keys() {
		change := reasons.Get(name)
		out = append(out, fmt.Sprintf("%s: %s->%s", name, change.Get("old_value").Text(), change.Get("new_value").Text()))
	}
	return out
}

// scheduledRestart is when the member restarts, and under which condition.
func (m member) scheduledRestart() string {
	s := m.doc.Get("scheduled_restart")
	at := s.Get("schedule").Text()
	if !s.IsObject() || at == "" {
		return ""
	}
	if version := s.Get("postgres_version").Str(); version != "" {
		at += " if version < " + version
	}
	return at
}

// address is host:port, with brackets around an IPv6 address, which could not be told
// from its port otherwise.
func (m member) address() string {
	return events.Upstream{Host: m.host, Port: m.port}.Addr()
}
