package config

import "strings"

// Old spellings become today's before anything else looks at a tree, so that nothing
// else knows them (interfaces, section 1.22). Positions stay those of the old words.

// rename moves old to new in a mapping. keepNew decides who wins when both are there.
func rename(t *tree, old, name string, keepNew bool) {
	v := t.get(old)
	if v == nil {
		return
	}
	at := t.keyPos(old)
	if t.get(name) == nil {
		// In place, to keep the order.
		for i := range t.keys {
			if t.keys[i].key == old {
				t.keys[i].key = name
			}
		}
		return
	}
	t.remove(old)
	if !keepNew {
		t.set(name, at, v)
	}
}

// normalizeLocal returns a copy of a local configuration in today's words. bootstrap.dcs
// keeps its words, because they are what goes into the store.
func normalizeLocal(t *tree) *tree {
	t = t.clone()
	if pg := t.get("postgresql"); pg != nil && pg.kind == kindMap {
		if t.get("name") == nil && pg.get("name").isScalar() {
			t.set("name", pg.keyPos("name"), pg.get("name"))
		}
		pg.remove("name")
		liftCredentials(pg)
		normalizePostgresql(pg)
	}
	for _, section := range []string{"restapi", "ctl"} {
		splitAuth(t.get(section))
	}
	if b := t.get("bootstrap"); b != nil && b.kind == kindMap {
		rename(b, "post_init", "post_bootstrap", true)
	}
	for _, section := range []string{"etcd", "etcd3"} {
		if s := t.get(section); s != nil && s.kind == kindMap {
			rename(s, "discovery_srv", "srv", true)
			rename(s, "srv_domain", "srv", true)
		}
	}
	if zk := t.get("zookeeper"); zk != nil && zk.kind == kindMap && zk.get("exhibitor") != nil && t.get("exhibitor") == nil {
		t.set("exhibitor", zk.keyPos("exhibitor"), zk.get("exhibitor"))
		zk.remove("exhibitor")
	}
	return t
}

// liftCredentials moves postgresql.superuser and its like below authentication. The
// old name of the rewind role also turned rewinding on.
func liftCredentials(pg *tree) {
	if pg.get("authentication") != nil {
		return
	}
	auth := newMap(pg.pos)
	for _, r := range []struct{ old, name string }{{"superuser", "superuser"}, {"replication", "replication"}, {"pg_rewind", "rewind"}} {
		v := pg.get(r.old)
		if v == nil || v.kind != kindMap {
			continue
		}
		auth.set(r.name, pg.keyPos(r.old), v)
		pg.remove(r.old)
		if r.old == "pg_rewind" && pg.get("use_pg_rewind") == nil {
			pg.set("use_pg_rewind", v.pos, newBool(true, v.pos))
		}
	}
	if len(auth.keys) > 0 {
		pg.set("authentication", auth.keys[0].pos, auth)
	}
}

// splitAuth turns `auth: user:password` into an authentication section.
func splitAuth(section *tree) {
	if section == nil || section.kind != kindMap || !section.get("auth").isScalar() || section.get("authentication") != nil {
		return
	}
	auth := section.get("auth")
	user, password, ok := strings.Cut(auth.text, ":")
	if !ok {
		return
	}
	m := newMap(auth.pos)
	m.set("username", auth.pos, newString(user, auth.pos))
	m.set("password", auth.pos, newString(password, auth.pos))
	section.set("authentication", section.keyPos("auth"), m)
	section.remove("auth")
}

// normalizePostgresql renames inside a postgresql section, local or shared, in place.
func normalizePostgresql(pg *tree) {
	rename(pg, "create_replica_method", "create_replica_methods", true)
}

// normalizeDynamic returns a copy of a shared configuration in today's words.
func normalizeDynamic(t *tree) *tree {
	t = t.clone()
	rename(t, "master_start_timeout", "primary_start_timeout", true)
	rename(t, "master_stop_timeout", "primary_stop_timeout", true)
	// With several spellings of slots the longest name wins.
	rename(t, "permanent_slots", "slots", false)
	rename(t, "permanent_replication_slots", "slots", false)
	if pg := t.get("postgresql"); pg != nil && pg.kind == kindMap {
		normalizePostgresql(pg)
	}
	return t
}
