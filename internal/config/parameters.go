package config

import (
	"strconv"
	"strings"
)

// controlled is a parameter that all members must agree on: taken from /config only.
type controlled struct {
	name, def string
	// accept returns the value in its usual form, or false.
	accept func(*tree) (string, bool)
	// wants completes "must be …".
	wants string
}

// controlledParameters in the order of the command line, after listen_addresses, port
// and cluster_name, which nobody sets.
func controlledParameters() []controlled {
	return []controlled{
		{"wal_level", "replica", acceptWALLevel, "replica or logical"},
		{"hot_standby", "on", acceptOn, "on"},
		{"max_connections", "100", acceptFrom(25), "a number from 25"},
		{"max_wal_senders", "10", acceptFrom(3), "a number from 3"},
		{"max_prepared_transactions", "0", acceptFrom(0), "a number from 0"},
		{"max_locks_per_transaction", "64", acceptFrom(32), "a number from 32"},
		{"track_commit_timestamp", "off", acceptBool, "on or off"},
		{"max_replication_slots", "10", acceptFrom(4), "a number from 4"},
		{"max_worker_processes", "8", acceptFrom(2), "a number from 2"},
		{"wal_log_hints", "on", acceptBool, "on or off"},
	}
}

func acceptFrom(lo int64) func(*tree) (string, bool) {
	return func(t *tree) (string, bool) {
		n, ok := readInt(t)
		return strconv.FormatInt(n, 10), ok && n >= lo
	}
}

func acceptBool(t *tree) (string, bool) {
	b, ok := readBool(t)
	if b {
		return "on", ok
	}
	return "off", ok
}

func acceptOn(t *tree) (string, bool) {
	b, ok := readBool(t)
	return "on", ok && b
}

func acceptWALLevel(t *tree) (string, bool) {
	s, _ := readText(t)
	switch strings.ToLower(s) {
	case "hot_standby", "replica":
		return "replica", true
	case "logical":
		return "logical", true
	}
	return "", false
}

// parameterMerge sorts parameters into the file, the command line, recovery, and away.
type parameterMerge struct {
	path           string // of the parameters, for messages
	version        int
	file, recovery map[string]string
	spelling       map[string]string // lower case → key in file
	command        map[string]*tree  // lower case → shared value, wal_keep_* included
	problems       []Problem
}

func newParameterMerge(path string, version int) *parameterMerge {
	return &parameterMerge{
		path: path, version: version,
		file: map[string]string{}, recovery: map[string]string{},
		spelling: map[string]string{}, command: map[string]*tree{},
	}
}

func (m *parameterMerge) note(at pos, sev Severity, name, value, message, hint string) {
	p := problemAt(at, sev, m.path+"."+name, message, hint)
	p.Value = value
	m.problems = append(m.problems, p)
}

// add takes one mapping of parameters, the shared one first.
func (m *parameterMerge) add(t *tree, shared bool) {
	if t == nil || t.kind != kindMap {
		return
	}
	for _, e := range t.keys {
		name := strings.ToLower(e.key)
		if e.val.kind >= kindList {
			continue
		}
		switch {
		case name == "listen_addresses" || name == "port":
			m.note(e.pos, Notice, e.key, e.val.display(), "has no effect, postgresql.listen of each member decides", "remove it")
		case name == "cluster_name":
			m.note(e.pos, Notice, e.key, e.val.display(), "has no effect, it is always the scope", "remove it")
		case isControlled(name):
			if shared {
				m.command[name] = e.val
				continue
			}
			m.note(e.pos, Notice, e.key, e.val.display(), "has no effect here, all members must agree on it", "set it with edit-config")
		case isRecovery(name):
			m.addRecovery(name, e)
		default:
			m.addFile(e.key, name, e.val)
		}
	}
}

func (m *parameterMerge) addFile(written, name string, val *tree) {
	if old, ok := m.spelling[name]; ok {
		delete(m.file, old)
	}
	m.spelling[name] = written
	if !val.isNull() {
		m.file[written] = settingText(val)
	}
}

func isControlled(name string) bool {
	if name == "wal_keep_segments" || name == "wal_keep_size" {
		return true
	}
	for _, c := range controlledParameters() {
		if c.name == name {
			return true
		}
	}
	return false
}

// isRecovery reports the settings that lived in recovery.conf once.
func isRecovery(name string) bool {
	switch name {
	case "restore_command", "archive_cleanup_command", "recovery_end_command", "recovery_min_apply_delay",
		"promote_trigger_file", "trigger_file", "standby_mode", "primary_conninfo", "primary_slot_name":
		return true
	}
	return name == "recovery_target" || strings.HasPrefix(name, "recovery_target_")
}

// refusedRecovery reports the recovery settings that are the agent's own business: a
// member follows the primary, on its latest timeline, without a target.
func refusedRecovery(name string) bool {
	switch name {
	case "standby_mode", "primary_conninfo", "primary_slot_name":
		return true
	}
	return name == "recovery_target" || strings.HasPrefix(name, "recovery_target_")
}

func (m *parameterMerge) addRecovery(name string, e entry) {
	value := e.val.display()
	if name == "primary_conninfo" {
		value = hidden
	}
	if refusedRecovery(name) {
		m.note(e.pos, Notice, e.key, value, "has no effect, a member always follows the primary on its latest timeline", "remove it")
		return
	}
	if name == "trigger_file" {
		name = "promote_trigger_file"
	}
	if _, ok := m.recovery[name]; ok || e.val.isNull() {
		return // recovery_conf wins
	}
	m.recovery[name] = settingText(e.val)
}

// addRecoveryConf takes recovery_conf, without what a follower can't have.
func (m *parameterMerge) addRecoveryConf(settings map[string]string) {
	for name, value := range settings {
		name = strings.ToLower(name)
		if name == "trigger_file" {
			name = "promote_trigger_file"
		}
		if !refusedRecovery(name) {
			m.recovery[name] = value
		}
	}
}

func (m *parameterMerge) commandLine() []Param {
	var params []Param
	for _, c := range controlledParameters() {
		value := c.def
		if t := m.command[c.name]; !t.isNull() {
			if v, ok := c.accept(t); ok {
				value = v
			} else {
				m.note(t.pos, Warning, c.name, t.display(), "is refused, it must be "+c.wants+"; "+c.def+" is used", "")
			}
		}
		params = append(params, Param{c.name, value})
	}
	return params
}

const walSegmentMB = 16

// keepWAL writes wal_keep_size or, before PostgreSQL 13, wal_keep_segments, converting
// the one that was given into the one that the server knows.
func (m *parameterMerge) keepWAL() {
	segments, okSegments := readInt(m.command["wal_keep_segments"])
	megabytes, okSize := readMegabytes(m.command["wal_keep_size"])
	okSegments = okSegments && segments >= 1
	okSize = okSize && megabytes >= walSegmentMB
	for _, given := range []struct {
		name string
		ok   bool
	}{{"wal_keep_segments", okSegments}, {"wal_keep_size", okSize}} {
		if t := m.command[given.name]; !t.isNull() && !given.ok {
			m.note(t.pos, Warning, given.name, t.display(), "is refused, at least one segment (16MB) must be kept", "")
		}
	}
	if m.version > 0 && m.version < 130000 {
		switch {
		case okSegments:
		case okSize:
			segments = (megabytes + walSegmentMB - 1) / walSegmentMB
		default:
			segments = 8
		}
		m.file["wal_keep_segments"] = strconv.FormatInt(segments, 10)
		return
	}
	switch {
	case okSize:
	case okSegments && segments < 1<<40:
		megabytes = segments * walSegmentMB
	default:
		megabytes = 8 * walSegmentMB
	}
	m.file["wal_keep_size"] = strconv.FormatInt(megabytes, 10) + "MB"
}

// readMegabytes takes a size, or a bare number of megabytes, PostgreSQL's unit of
// wal_keep_size. Fractions of a megabyte are cut off.
func readMegabytes(t *tree) (int64, bool) {
	if n, ok := readInt(t); ok {
		return n, true
	}
	n, ok := readSize(t)
	return n >> 20, ok
}
