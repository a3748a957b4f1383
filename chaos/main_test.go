package chaos

import (
	"testing"

	"github.com/pgregent/regent/pgmgr/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m, "./cmd/regent", "./cmd/regent-keeper") }
