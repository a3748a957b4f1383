package chaos

import (
	"testing"

	"github.com/pgregent/regent/dcs/consul/consultest"
	"github.com/pgregent/regent/pgmgr/pgtest"
)

// PostgreSQL's user may not look into the home where Consul was built, so that is copied too.
func TestMain(m *testing.M) {
	build := []string{"./cmd/regent", "./cmd/regent-keeper"}
	if path, err := consultest.Find(); err == nil {
		build = append(build, path)
	}
	pgtest.Main(m, build...)
}
