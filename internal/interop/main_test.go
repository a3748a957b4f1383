package interop

import (
	"flag"
	"testing"

	"github.com/pgregent/regent/internal/sandbox/storetest"
)

// The tests wait for leases most of the time, so one more of them runs at once than there are
// cores on a small machine, unless -parallel says otherwise.
func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", "3"); err != nil {
		panic(err)
	}
	storetest.Main(m)
}
