package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/internal/config"
)

// An agent joins no cluster that relies on a protection which it lacks, and says which.
func TestNoStartWhereAPromiseCantBeKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "patroni.yml")
	if err := os.WriteFile(path, []byte(memberFile("/srv")), 0o600); err != nil {
		t.Fatal(err)
	}
	local, err := config.Load(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{local: local}
	for shared, refused := range map[string]string{
		``:                               "",
		`{"ttl":30,"owner":"x"}`:         "",
		`{"failsafe_mode":true}`:         "",
		`{"failsafe_mode":true,"ttl":4}`: "needs a ttl of at least 5s",
		`{"standby_cluster":{"host":"elsewhere"}}`: "standby_cluster",
	} {
		var v events.ClusterView
		if shared != "" {
			v.Config = events.DynamicConfig{Version: 3, Raw: json.RawMessage(shared)}
		}
		err := d.canKeep(v)
		if refused == "" && err != nil || refused != "" && (err == nil || !strings.Contains(err.Error(), refused)) {
			t.Errorf("%s: %v", shared, err)
		}
	}
}
