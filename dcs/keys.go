package dcs

import (
	"strings"

	"github.com/pgregent/regent/events"
)

// The keys below a cluster's base path. They are Patroni's, so that both can live
// in one cluster; the exception says so.
const (
	// KeyLeader holds the bare name of the holder of the leader lease.
	KeyLeader = "leader"
	// KeyInitialize is empty while a bootstrap runs, then the system identifier.
	KeyInitialize = "initialize"
	// KeyConfig is the dynamic configuration, a JSON mapping.
	KeyConfig = "config"
	// KeyStatus is what the holder last published: position and slots.
	KeyStatus = "status"
	// KeyOptime is the older form of KeyStatus: a decimal position.
	KeyOptime = "optime/leader"
	// KeySync is the state of synchronous replication.
	KeySync = "sync"
	// KeyFailover is an operator's request.
	KeyFailover = "failover"
	// KeyHistory lists the timeline switches.
	KeyHistory = "history"
	// KeyFailsafe lists the members that must agree in failsafe mode.
	KeyFailsafe = "failsafe"
	// KeyMembers is the prefix of the members' keys. Nothing but members may live
	// below it, because Patroni takes every key there for one.
	KeyMembers = "members/"
	// KeyBootstrap is Regent's own, and ignored by Patroni, which reads only the
	// names above. It names who wrote the empty initialize key (safety rule S17)
	// and means something only while it carries that key's version, that is, as
	// long as both come from one transaction (see ClaimInitialize).
	KeyBootstrap = "regent/bootstrap"
)

// MemberKey is the key of a member.
func MemberKey(name events.NodeName) string { return KeyMembers + string(name) }

// MemberName is the inverse of MemberKey. Keys with a further slash are no members.
func MemberName(key string) (events.NodeName, bool) {
	name, ok := strings.CutPrefix(key, KeyMembers)
	if !ok || name == "" || strings.Contains(name, "/") {
		return "", false
	}
	return events.NodeName(name), true
}

// BasePath is the prefix of a cluster's keys in a store that several clusters
// share: "/namespace/scope/", runs of slashes collapsed. Consul's form has no
// leading slash; its backend cuts it.
func BasePath(namespace, scope string) string {
	path := "/"
	for _, part := range strings.Split(namespace+"/"+scope, "/") {
		if part != "" {
			path += part + "/"
		}
	}
	return path
}
