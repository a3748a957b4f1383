// Package pgtest gives tests real PostgreSQL servers and real binaries.
//
// A package that uses it hands its TestMain over:
//
//	func TestMain(m *testing.M) { pgtest.Main(m, "./cmd/regent-keeper") }
//
// The test binary then runs twice:
//
//	go test ─▶ supervisor (root or not)
//	             builds the commands, makes one world-readable folder, is the subreaper
//	             │
//	             └─▶ the tests, as a user PostgreSQL accepts ─▶ agents, keepers, postmasters
//
// When the tests end, however they end, the supervisor kills whatever they left
// running, removes the folder, and turns a pass into a failure if something had
// been left. It finds leftovers by descent, which setsid and double forks cannot
// hide from a subreaper.
//
// What can't run here (no PostgreSQL, no user to run it as) is skipped with the
// reason on a laptop and fails where the environment variable CI is set.
package pgtest
