// Package storetest runs tests that start servers of etcd and Consul beside real clusters.
// PostgreSQL refuses root, so such tests run as another user (see pgtest.Main), who may not look
// into the home where the servers were built: they are copied to where the tests are run from, and
// found there by etcdtest and consultest.
package storetest

import (
	"testing"

	"github.com/pgregent/regent/dcs/consul/consultest"
	"github.com/pgregent/regent/dcs/etcd3/etcdtest"
	"github.com/pgregent/regent/pgmgr/pgtest"
)

// Main runs a package's tests with the agent's and the keeper's program, what else is to be
// built, and the servers that this machine has. One that it lacks is reported by the test that
// needs it.
func Main(m *testing.M, build ...string) {
	build = append([]string{"./cmd/regent", "./cmd/regent-keeper"}, build...)
	if path, err := etcdtest.Find(etcdtest.V36); err == nil {
		build = append(build, path)
	}
	if path, err := consultest.Find(); err == nil {
		build = append(build, path)
	}
	pgtest.Main(m, build...)
}
