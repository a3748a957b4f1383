package interop

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/pgregent/regent/dcs/consul/consultest"
	"github.com/pgregent/regent/pgmgr/pgtest"
)

// The tests wait for leases most of the time, so one more of them runs at once than there are
// cores on a small machine, unless -parallel says otherwise.
//
// PostgreSQL's user may not look into the home where Consul was built, so that is copied to
// where these tests are run from, and looked for there.
func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", "3"); err != nil {
		panic(err)
	}
	build := []string{"./cmd/regent", "./cmd/regent-keeper"}
	if path, err := consultest.Find(); err == nil {
		build = append(build, path)
	} else if self, err := os.Executable(); err == nil {
		copied := filepath.Join(filepath.Dir(self), "consul")
		if _, err := os.Stat(copied); err == nil {
			_ = os.Setenv("CONSUL_BIN", copied) // a server that isn't found is reported by its test
		}
	}
	pgtest.Main(m, build...)
}
