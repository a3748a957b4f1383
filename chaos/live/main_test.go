package live

import (
	"testing"

	"github.com/pgregent/regent/dcs/consul/consultest"
	"github.com/pgregent/regent/dcs/etcd3/etcdtest"
	"github.com/pgregent/regent/internal/sandbox/hosts"
	"github.com/pgregent/regent/pgmgr/pgtest"
)

// PostgreSQL's user may not look into the home where stores were built, so that they are copied too.
func TestMain(m *testing.M) {
	build := []string{"./cmd/regent", "./cmd/regent-keeper"}
	if path, err := consultest.Find(); err == nil {
		build = append(build, path)
	}
	if path, err := etcdtest.Find(etcdtest.V36); err == nil {
		build = append(build, path)
	}
	pgtest.MainIn(m, hosts.Run, build...)
}
