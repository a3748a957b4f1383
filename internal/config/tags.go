package config

import (
	"sort"
	"strconv"
	"strings"

	"github.com/pgregent/regent/events"
)

// decodeTags reads the tags and what of them is published. NoFailover and NoSync are
// resolved: a written nofailover wins over failover_priority, a priority of 0 or less
// means nofailover otherwise. A flag that is neither true nor false counts as set, as it
// does for the members that read it from the store. Raw is nil when nothing is published.
func decodeTags(t *tree) events.Tags {
	tags := events.Tags{
		NoFailover:       truthy(t.get("nofailover")),
		FailoverPriority: 1,
		NoLoadBalance:    truthy(t.get("noloadbalance")),
		CloneFrom:        truthy(t.get("clonefrom")),
		NoSync:           truthy(t.get("nosync")),
		NoStream:         truthy(t.get("nostream")),
		ReplicateFrom:    events.NodeName(str(t.get("replicatefrom"), "")),
	}
	if n, ok := readInt(t.get("failover_priority")); ok {
		tags.FailoverPriority = int(max(min(n, 1<<30), -1<<30))
		if t.get("nofailover").isNull() && n <= 0 {
			tags.NoFailover = true
		}
	}
	if n, ok := readInt(t.get("sync_priority")); ok {
		tags.SyncPriority = int(max(min(n, 1<<30), 0))
		if t.get("nosync").isNull() && n <= 0 {
			tags.NoSync = true
		}
	}
	tags.Raw = publishedTags(t)
	return tags
}

// publishedTags filters as Patroni does: known tags at a false value are hidden, unless
// the priority that they contradict is there too. Values keep their type.
func publishedTags(t *tree) []byte {
	if t == nil || t.kind != kindMap {
		return nil
	}
	out := newMap(t.pos)
	for _, e := range t.keys {
		switch e.key {
		case "clonefrom", "noloadbalance", "nostream", "nofailover", "nosync":
			partner := map[string]string{"nofailover": "failover_priority", "nosync": "sync_priority"}[e.key]
			if !truthy(e.val) && (partner == "" || t.get(partner) == nil) {
				continue
			}
		}
		out.set(e.key, e.pos, e.val)
	}
	if len(out.keys) == 0 {
		return nil
	}
	sort.Slice(out.keys, func(i, j int) bool { return out.keys[i].key < out.keys[j].key })
	return appendJSON(nil, out)
}

// truthy is Python's idea of it, with the words that mean false added.
func truthy(t *tree) bool {
	if t.isNull() {
		return false
	}
	if b, ok := readBool(t); ok {
		return b
	}
	if t.kind == kindList || t.kind == kindMap {
		return len(t.list)+len(t.keys) > 0
	}
	n, isNumber := readNumber(t)
	return t.text != "" && !(isNumber && n == 0)
}

// checkTags warns of tags that contradict each other.
func checkTags(t *tree) []Problem {
	var problems []Problem
	for _, pair := range []struct{ flag, priority string }{{"nofailover", "failover_priority"}, {"nosync", "sync_priority"}} {
		flag, okFlag := readBool(t.get(pair.flag))
		n, okPriority := readInt(t.get(pair.priority))
		if !okFlag || !okPriority || flag == (n <= 0) {
			continue
		}
		p := problemAt(t.get(pair.flag).pos, Warning, "tags."+pair.flag,
			"contradicts "+pair.priority+": "+strconv.FormatInt(n, 10)+"; "+pair.flag+" counts", "remove one of the two")
		p.Value = strings.ToLower(t.get(pair.flag).pyString())
		problems = append(problems, p)
	}
	return problems
}
