package events

import "time"

// Settings are everything configurable that a decision reads: the dynamic
// configuration with Patroni's defaults filled in, and this member's own part.
type Settings struct {
	TTL                 time.Duration `json:"ttl"`
	LoopWait            time.Duration `json:"loop_wait"`
	RetryTimeout        time.Duration `json:"retry_timeout"`
	PrimaryStartTimeout time.Duration `json:"primary_start_timeout"`
	// PrimaryStopTimeout, if it isn't 0, bounds each step of a demotion's stop: fast, immediate.
	PrimaryStopTimeout   time.Duration `json:"primary_stop_timeout,omitempty"`
	MaximumLagOnFailover int64         `json:"maximum_lag_on_failover"` // bytes
	CheckTimeline        bool          `json:"check_timeline,omitempty"`
	// Sync: synchronous mode with one standby. SyncStrict: no commit without one.
	Sync       bool `json:"sync,omitempty"`
	SyncStrict bool `json:"sync_strict,omitempty"`
	// Failsafe: without the store a primary goes on while all members vouch for it (S12).
	Failsafe bool `json:"failsafe,omitempty"`
	// MaximumLagOnSync in bytes: who is further behind the best isn't chosen as the
	// synchronous standby; 0 or less: no limit.
	MaximumLagOnSync    int64         `json:"maximum_lag_on_sync,omitempty"`
	MaxTimelinesHistory int           `json:"max_timelines_history,omitempty"`
	MemberSlotsTTL      time.Duration `json:"member_slots_ttl,omitempty"`
	Pause               bool          `json:"pause,omitempty"`
	// FencingOff: no deadline ends a primary whose agent is gone.
	FencingOff bool `json:"fencing_off,omitempty"`
	// ConfigVersion is the version of the config key that these were made from; 0:
	// the local file's.
	ConfigVersion Revision `json:"config_version,omitempty"`
	UseSlots      bool     `json:"use_slots,omitempty"`
	UsePgRewind   bool     `json:"use_pg_rewind,omitempty"`
	// RemoveDataDir: rebuild from scratch when pg_rewind can't work
	// (remove_data_directory_on_rewind_failure or …_on_diverged_timelines).
	RemoveDataDir bool `json:"remove_data_dir,omitempty"`
	// StopWait bounds how long a clean stop or a switchover waits for a candidate
	// to have everything.
	StopWait time.Duration `json:"stop_wait"`
	// MayBootstrap: the file has a bootstrap section.
	MayBootstrap bool   `json:"may_bootstrap,omitempty"`
	Tags         Tags   `json:"tags"`
	ConnURL      string `json:"conn_url,omitempty"`
	APIURL       string `json:"api_url,omitempty"`
	// BootstrapConfig is the JSON that the bootstrapper writes to /config.
	BootstrapConfig string `json:"bootstrap_config,omitempty"`
}

// MarginPermille is how much of a lease the holder does not believe: clocks may
// differ in rate by less than this (3 % stands against 1 % drift; see the property
// test in dcs/embedded/kv).
const MarginPermille = 30

// Belief is how long after SentAt a lease of that ttl may be acted upon.
func Belief(ttl time.Duration) time.Duration {
	return ttl - ttl*MarginPermille/1000
}

// StopBudget is B of the safety rules: the time before the belief's end at which
// the server is being stopped. At least 400 ms, at most 3 s.
func StopBudget(ttl time.Duration) time.Duration {
	return min(max(400*time.Millisecond, ttl/10), 3*time.Second)
}
