package pgmgr

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// commandLineGUC is a parameter that every member must agree on, so that it is
// taken from the store and given on the command line, where neither ALTER SYSTEM
// nor an included file can change it.
type commandLineGUC struct {
	name, def string
	accept    func(string) (string, bool)
	// control reads the value that the control file demands of a standby; nil if
	// there is none.
	control func(ControlData) int
}

// commandLineGUCs, in the order of the command line, after listen_addresses, port
// and cluster_name.
func commandLineGUCs() []commandLineGUC {
	return []commandLineGUC{
		{name: "wal_level", def: "replica", accept: acceptWALLevel},
		{name: "hot_standby", def: "on", accept: acceptOnlyTrue},
		{"max_connections", "100", atLeast(25), func(c ControlData) int { return c.MaxConnections }},
		{"max_wal_senders", "10", atLeast(3), func(c ControlData) int { return c.MaxWALSenders }},
		{"max_prepared_transactions", "0", atLeast(0), func(c ControlData) int { return c.MaxPreparedXacts }},
		{"max_locks_per_transaction", "64", atLeast(32), func(c ControlData) int { return c.MaxLocksPerXact }},
		{name: "track_commit_timestamp", def: "off", accept: acceptBool},
		{name: "max_replication_slots", def: "10", accept: atLeast(4)},
		{"max_worker_processes", "8", atLeast(2), func(c ControlData) int { return c.MaxWorkerProcesses }},
		{name: "wal_log_hints", def: "on", accept: acceptBool},
	}
}

// CommandLineGUCs names the parameters that belong to the store's configuration
// only: a local value for one of them must not reach Config.Parameters.
func CommandLineGUCs() []string {
	names := []string{"listen_addresses", "port", "cluster_name"}
	for _, g := range commandLineGUCs() {
		names = append(names, g.name)
	}
	return names
}

func acceptWALLevel(v string) (string, bool) {
	switch v = strings.ToLower(v); v {
	case "hot_standby", "replica":
		return "replica", true
	case "logical":
		return v, true
	}
	return "", false
}

func acceptBool(v string) (string, bool) {
	b, ok := parseBool(v)
	if !ok {
		return "", false
	}
	if b {
		return "on", true
	}
	return "off", true
}

func acceptOnlyTrue(v string) (string, bool) {
	s, ok := acceptBool(v)
	return s, ok && s == "on"
}

func atLeast(low int) func(string) (string, bool) {
	return func(v string) (string, bool) {
		n, err := strconv.Atoi(strings.TrimSpace(v))
		return strconv.Itoa(n), err == nil && n >= low
	}
}

// parseBool reads a boolean as PostgreSQL does: unique prefixes of the words, too.
func parseBool(v string) (value, ok bool) {
	v = strings.ToLower(strings.TrimSpace(v))
	switch {
	case v == "":
		return false, false
	case v == "1", v == "on", strings.HasPrefix("true", v), strings.HasPrefix("yes", v):
		return true, true
	case v == "0", v == "of", v == "off", strings.HasPrefix("false", v), strings.HasPrefix("no", v):
		return false, true
	}
	return false, false
}

// recoveryTargets are blanked: a standby follows to the end, always.
func recoveryTargets() []string {
	return []string{
		"recovery_target", "recovery_target_lsn", "recovery_target_name", "recovery_target_time",
		"recovery_target_xid",
	}
}

// recoveryGUCs are the settings of the old recovery.conf. Wherever they are found
// (parameters, postgresql.auto.conf), the generated section decides instead.
func recoveryGUCs() []string {
	return append(recoveryTargets(),
		"archive_cleanup_command", "primary_conninfo", "primary_slot_name", "promote_trigger_file",
		"recovery_end_command", "recovery_min_apply_delay", "recovery_target_action",
		"recovery_target_inclusive", "recovery_target_timeline", "restore_command")
}

// retryInterval is wal_retrieve_retry_interval on members whose user set none: a standby
// whose upstream was away for a moment should not take PostgreSQL's five seconds to notice that it is
// back.
const retryInterval = "100ms"

// serverParameters are the parameters with their defaults and corrections, as
// written to postgresql.conf. warnings name what was corrected.
func (c Config) serverParameters(version int) (params map[string]string, warnings []string) {
	params = map[string]string{"wal_retrieve_retry_interval": retryInterval}
	for name, value := range c.Parameters {
		name = strings.ToLower(name)
		switch {
		case name == "data_directory":
			warnings = append(warnings, "postgresql parameter data_directory is ignored, data_dir says where it is")
		case !slices.Contains(recoveryGUCs(), name):
			params[name] = value
		}
	}
	for _, g := range commandLineGUCs() {
		given, set := params[g.name]
		params[g.name] = g.def
		if !set {
			continue
		}
		if v, ok := g.accept(given); ok {
			params[g.name] = v
		} else {
			warnings = append(warnings, fmt.Sprintf("postgresql parameter %s=%s failed validation, defaulting to %s",
				g.name, given, g.def))
		}
	}
	warnings = append(warnings, keepWAL(params, version)...)
	params["listen_addresses"] = c.ListenAddresses
	params["port"] = strconv.Itoa(c.Port)
	params["cluster_name"] = c.Scope
	return params, warnings
}

// keepWAL settles wal_keep_segments and wal_keep_size: the version knows one of
// them, the user may have set the other. WAL that is kept is what a replica
// without a slot and pg_rewind live on.
func keepWAL(params map[string]string, version int) (warnings []string) {
	const segmentMB, defaultMB = 16, 128
	mb := defaultMB
	if v, ok := params["wal_keep_segments"]; ok {
		if n, err := strconv.Atoi(v); err == nil && n >= 1 {
			mb = n * segmentMB
		} else {
			warnings = append(warnings, fmt.Sprintf("postgresql parameter wal_keep_segments=%s failed validation, defaulting to 8", v))
		}
	}
	if v, ok := params["wal_keep_size"]; ok {
		if n, ok := parseMB(v); ok && n >= segmentMB {
			mb = n
		} else {
			warnings = append(warnings, fmt.Sprintf("postgresql parameter wal_keep_size=%s failed validation, defaulting to 128MB", v))
		}
	}
	delete(params, "wal_keep_segments")
	delete(params, "wal_keep_size")
	if version >= 130000 {
		params["wal_keep_size"] = strconv.Itoa(mb) + "MB"
	} else {
		params["wal_keep_segments"] = strconv.Itoa((mb + segmentMB - 1) / segmentMB)
	}
	return warnings
}

// parseMB reads a size with PostgreSQL's units; a bare number is megabytes.
func parseMB(v string) (int, bool) {
	v = strings.TrimSpace(v)
	digits := strings.TrimRight(v, "kKMGTB ")
	n, err := strconv.Atoi(digits)
	if err != nil || n < 0 {
		return 0, false
	}
	switch strings.TrimSpace(v[len(digits):]) {
	case "", "MB":
		return n, true
	case "kB":
		return n / 1024, true
	case "GB":
		return n * 1024, true
	case "TB":
		return n * 1024 * 1024, true
	case "B":
		return n / (1024 * 1024), true
	}
	return 0, false
}

// commandLine is the postmaster's. A standby needs at least what its control file
// demands for hot standby; raised names what was lifted to that.
func (c Config) commandLine(params map[string]string, control ControlData, standby bool) (args []string, raised changes) {
	args = []string{
		c.tool("postgres"), "-D", c.DataDir, "--config-file=" + c.confPath("postgresql.conf"),
		"--listen_addresses=" + params["listen_addresses"], "--port=" + params["port"], "--cluster_name=" + params["cluster_name"],
	}
	raised = changes{}
	for _, g := range commandLineGUCs() {
		value := params[g.name]
		if standby && g.control != nil {
			if need := g.control(control); atoi(value) < need {
				raised[g.name] = change{Old: strconv.Itoa(need), New: value}
				value = strconv.Itoa(need)
			}
		}
		args = append(args, "--"+g.name+"="+value)
	}
	return args, raised
}

// atoi reads a number that was validated before; anything else is 0.
func atoi(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0
	}
	return n
}
