package hosts

import (
	"os"
	"testing"

	"github.com/pgregent/regent/dcs/consul/consultest"
	"github.com/pgregent/regent/pgmgr/pgtest"
)

// PostgreSQL's user may not look into the home where Consul was built, so that is copied too.
func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		os.Exit(asChild(dir))
	}
	build := []string{"./cmd/regent", "./cmd/regent-keeper"}
	if path, err := consultest.Find(); err == nil {
		build = append(build, path)
	}
	pgtest.MainIn(m, Run, build...)
}

// need skips a test for which there are no namespaces; in CI it fails.
func need(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("needs namespaces: real networks are left out of -short")
	}
	if err := Refused(); err != nil {
		pgtest.Need(t, err.Error())
	}
}
