package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/pgregent/regent/internal/mono"
	"github.com/pgregent/regent/pgmgr/keeper"
)

// watchdogNote is a file in the run directory that says which device counts. A
// keeper that is killed leaves the device counting, and the next one must know.
type watchdogNote struct {
	path, boot string
}

type noted struct {
	Boot     string          `json:"boot"` // after a reboot nothing counts
	Watchdog keeper.Watchdog `json:"watchdog"`
}

func newWatchdogNote(runDir string) *watchdogNote {
	return &watchdogNote{path: filepath.Join(runDir, "watchdog"), boot: mono.BootID()}
}

func (n *watchdogNote) write(w keeper.Watchdog) error {
	b, err := json.Marshal(noted{Boot: n.boot, Watchdog: w})
	if err == nil {
		err = os.WriteFile(n.path, b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("note that the watchdog counts: %w", err)
	}
	return nil
}

// read returns the device that an earlier keeper of this boot left counting.
func (n *watchdogNote) read() (keeper.Watchdog, bool) {
	b, err := os.ReadFile(n.path)
	if err != nil {
		return keeper.Watchdog{}, false
	}
	var w noted
	if err := json.Unmarshal(b, &w); err != nil || w.Boot != n.boot || w.Watchdog.Device == "" {
		return keeper.Watchdog{}, false
	}
	return w.Watchdog, true
}

func (n *watchdogNote) remove(log *slog.Logger) {
	if err := os.Remove(n.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Error("remove the note about the watchdog", "err", err)
	}
}
