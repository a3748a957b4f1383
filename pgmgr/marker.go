package pgmgr

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// marker says that a verb is at work on the data directory, or was when it was
// interrupted. It lies in the run directory: base backup and rewind copy or
// delete what is in the data directory. Without a marker, what the directory
// holds is what PostgreSQL left there; with one, it is never started.
type marker struct {
	Verb    string    `json:"verb"`
	DataDir string    `json:"data_dir"`
	Started time.Time `json:"started"`
}

// The verbs that leave a directory unusable when interrupted.
const (
	verbBootstrap = "bootstrap"
	verbClone     = "clone"
	verbRewind    = "rewind"
	verbRemove    = "remove"
	// verbRecover: a standby was recovered alone, for a rewind that hasn't happened
	// yet. It has ended its recovery without a new timeline, so it may be rewound or
	// replaced, never started.
	verbRecover = "recovery"
)

// disposable reports whether the directory's content was made by us and is worth
// nothing: it may be wiped without asking.
func (k marker) disposable() bool {
	return k.Verb == verbBootstrap || k.Verb == verbClone || k.Verb == verbRemove
}

func (k marker) describe() string {
	if k.disposable() {
		return "left half-made by an interrupted " + k.Verb + "; it will be made anew"
	}
	return "left unusable by an interrupted " + k.Verb
}

func (m *Manager) markerPath() string { return filepath.Join(m.config().RunDir, markerName) }

// Unfinished reports whether a verb was interrupted on the data directory that belongs to
// a run directory: what it holds is the agent's business then.
func Unfinished(runDir string) bool { return exists(filepath.Join(runDir, markerName)) }

const markerName = "unfinished.json"

// marked reads the marker; ok is false when there is none. A marker that can't be
// read counts as one of a rewind: the directory is neither started nor wiped
// without being told to.
func (m *Manager) marked() (k marker, ok bool) {
	b, err := os.ReadFile(m.markerPath())
	if errors.Is(err, os.ErrNotExist) {
		return marker{}, false
	}
	if err == nil {
		err = json.Unmarshal(b, &k)
	}
	if err != nil || k.DataDir != m.config().DataDir {
		return marker{Verb: verbRewind, DataDir: m.config().DataDir}, true
	}
	return k, true
}

// mark writes the marker, durably, before the verb touches the directory.
func (m *Manager) mark(verb string) error {
	b, err := json.Marshal(marker{Verb: verb, DataDir: m.config().DataDir, Started: time.Now().UTC()})
	if err != nil {
		return fmt.Errorf("write marker: %w", err)
	}
	if _, err := writeFile(m.markerPath(), append(b, '\n'), 0o600); err != nil {
		return classed(ErrUnavailable, "write marker", err)
	}
	return nil
}

// unmark removes the marker, durably, after the directory is whole and on disk.
func (m *Manager) unmark() error {
	err := os.Remove(m.markerPath())
	if err == nil {
		err = syncDir(filepath.Dir(m.markerPath()))
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return classed(ErrUnavailable, "remove marker", err)
	}
	return nil
}
