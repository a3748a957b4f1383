package config

import "strings"

// promise is a setting that promises safety and that this release can't keep. It is an
// error wherever it asks for something: going on without would mean that an operator
// relies on a protection which isn't there (architecture, section 9).
type promise struct {
	path string
	// shared: a key of /config and bootstrap.dcs; otherwise one of the local file.
	// Keys of the postgresql section count in both.
	shared bool
	// asks reports whether the value, which is never null, asks for the protection.
	asks func(*tree) bool
	// why completes "is not implemented in this release: …".
	why  string
	hint string
}

// promises is the whole list. To implement one of them, delete its row and set the
// key's status in keys_*.go to honoured; partly, if some values are still refused.
func promises() []promise {
	return []promise{
		{"synchronous_mode", true, notBool, "commits would not wait for any of several standbys", "set it to on: commits wait for one standby"},
		{"synchronous_node_count", true, moreThan(1), "commits would wait for one standby only", "set it to 1"},
		{"standby_cluster", true, followsRemote, "this cluster would become writable beside the one it should follow", "remove the section"},
		{"slots", true, hasContent, "a logical consumer would lose its slot, and data, in a failover", "remove the section and create slots by hand"},
		{"postgresql.pre_promote", true, hasContent, "a promotion would not wait for your script's consent", "remove the key"},
		{"postgresql.config_base_name", false, notWord("postgresql"), "PostgreSQL would run with postgresql.conf instead", "rename the file, and remove the key"},
		{"citus", false, hasContent, "Citus clusters are out of scope", "remove the section"},
		{"bootstrap.method", false, notWord("initdb"), "an empty database would be created where your method would restore one", "remove the key once the cluster exists"},
		{"restapi.verify_client", false, notWord("none"), "client certificates would not be asked for", "remove the key; set restapi.authentication"},
		{"restapi.allowlist", false, hasContent, "every host could use the endpoints that change something", "remove the key; set restapi.authentication"},
		{"restapi.allowlist_include_members", false, isOn, "it would restrict nothing", "remove the key; set restapi.authentication"},
		{"restapi.keyfile_password", false, hasContent, "an encrypted key can't be read", "use a key without a password, readable by this user only"},
	}
}

func isOn(t *tree) bool {
	b, ok := readBool(t)
	return b || !ok
}

func notBool(t *tree) bool {
	_, ok := readBool(t)
	return !ok
}

func moreThan(n int) func(*tree) bool {
	return func(t *tree) bool {
		v, ok := readInt(t)
		return ok && v > int64(n)
	}
}

func notWord(word string) func(*tree) bool {
	return func(t *tree) bool {
		if b, ok := readBool(t); ok && !b {
			return word != "off" && word != "none"
		}
		s, _ := readText(t)
		return !strings.EqualFold(s, word)
	}
}

func hasContent(t *tree) bool {
	switch t.kind {
	case kindMap:
		return len(t.keys) > 0
	case kindList:
		return len(t.list) > 0
	default:
		b, ok := readBool(t)
		return t.text != "" && (b || !ok)
	}
}

// followsRemote: host, port or restore_command make a standby cluster; other keys
// alone do nothing.
func followsRemote(t *tree) bool {
	for _, k := range []string{"host", "port", "restore_command"} {
		if v := t.get(k); !v.isNull() && hasContent(v) {
			return true
		}
	}
	return false
}

// checkPromises reports every promise of t that can't be kept.
func checkPromises(t *tree, prefix string, shared bool) []Problem {
	var problems []Problem
	for _, p := range promises() {
		if p.shared != shared && !(p.shared && strings.HasPrefix(p.path, "postgresql.")) {
			continue
		}
		v := t.at(p.path)
		if v.isNull() || !p.asks(v) {
			continue
		}
		problem := problemAt(v.pos, Error, prefix+p.path, "is not implemented in this release: "+p.why, p.hint)
		if v.kind < kindList {
			problem.Value = v.display()
		}
		if row, ok := localIndex.row(p.path); ok && row.typ == tSecret {
			problem.Value = hidden
		}
		problems = append(problems, problem)
	}
	return problems
}
