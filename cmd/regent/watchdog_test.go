package main

import (
	"testing"
	"time"

	"github.com/pgregent/regent/internal/config"
	"github.com/pgregent/regent/pgmgr/keeper"
)

// TestWatchdogOf: Patroni's timeouts, for the ttl in force.
func TestWatchdogOf(t *testing.T) {
	for _, tt := range []struct {
		section config.Watchdog
		ttl     time.Duration
		want    keeper.Watchdog
	}{
		{config.Watchdog{Mode: "off", Device: "/dev/watchdog", SafetyMargin: 5 * time.Second}, 30 * time.Second, keeper.Watchdog{}},
		{
			config.Watchdog{Mode: "automatic", Device: "/dev/watchdog", SafetyMargin: 5 * time.Second}, 30 * time.Second,
			keeper.Watchdog{Mode: keeper.WatchdogAutomatic, Device: "/dev/watchdog", Timeout: 25 * time.Second},
		},
		{
			config.Watchdog{Mode: "required", Device: "/dev/wd", SafetyMargin: -time.Second, Driver: "testing"}, 5 * time.Second,
			keeper.Watchdog{Mode: keeper.WatchdogRequired, Device: "/dev/wd", Driver: keeper.DriverTesting, Timeout: 2 * time.Second},
		},
		{ // the keeper says what is wrong with it
			config.Watchdog{Mode: "required", Device: "/dev/wd", SafetyMargin: 5 * time.Second}, 2 * time.Second,
			keeper.Watchdog{Mode: keeper.WatchdogRequired, Device: "/dev/wd", Timeout: -3 * time.Second},
		},
	} {
		if got := watchdogOf(tt.section, tt.ttl); got != tt.want {
			t.Errorf("%+v with ttl %s: got %+v, want %+v", tt.section, tt.ttl, got, tt.want)
		}
	}
}
