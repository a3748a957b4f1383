package chaos

import (
	"testing"

	"github.com/pgregent/regent/internal/sandbox/storetest"
)

func TestMain(m *testing.M) { storetest.Main(m) }
