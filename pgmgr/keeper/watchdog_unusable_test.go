package keeper_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgregent/regent/pgmgr/keeper"
)

// TestWatchdogIsJudgedWithoutOpeningIt: opening a device starts it.
func TestWatchdogIsJudgedWithoutOpeningIt(t *testing.T) {
	dir := t.TempDir()
	file, closed := filepath.Join(dir, "file"), filepath.Join(dir, "closed")
	for path, mode := range map[string]os.FileMode{file: 0o600, closed: 0o400} {
		if err := os.WriteFile(path, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	const ttl = 30 * time.Second
	for _, tt := range []struct {
		what string
		w    keeper.Watchdog
		want string // empty: usable
	}{
		{"a device", keeper.Watchdog{Device: "/dev/null", Timeout: 25 * time.Second}, ""},
		{"a file for tests", keeper.Watchdog{Device: file, Driver: keeper.DriverTesting, Timeout: 25 * time.Second}, ""},
		{"nothing", keeper.Watchdog{Device: filepath.Join(dir, "none"), Timeout: 25 * time.Second}, "there is no "},
		{"a file", keeper.Watchdog{Device: file, Timeout: 25 * time.Second}, "is no device"},
		{"too short", keeper.Watchdog{Device: "/dev/null"}, "less than a device can do"},
		{"longer than the belief", keeper.Watchdog{Device: "/dev/null", Timeout: ttl}, "ends after the lease"},
		{"not ours", keeper.Watchdog{Device: closed, Driver: keeper.DriverTesting, Timeout: 25 * time.Second}, "can't be written"},
	} {
		if strings.HasPrefix(tt.want, "can't") && os.Getuid() == 0 {
			continue // root may write everywhere
		}
		err := tt.w.Unusable(ttl)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.what, err, tt.want)
		}
	}
}
