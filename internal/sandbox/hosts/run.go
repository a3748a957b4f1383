package hosts

import (
	"errors"
	"fmt"
	"os"
)

// refused is why this program runs its tests outside of any namespaces; nil otherwise.
var refused error

// Run runs the tests in namespaces, and returns their exit code; pgtest.MainIn takes it. Where
// there are none to be had they run without, and those that need some say so by Need.
func Run(tests func() int) int {
	inside, code, err := Enter()
	switch {
	case inside:
		return tests()
	case errors.Is(err, ErrUnavailable):
		refused = err
		return tests()
	case err != nil:
		_, _ = fmt.Fprintln(os.Stderr, "hosts:", err)
		return max(code, 1)
	default:
		return code
	}
}

// Refused is why there are no namespaces here, nil where there are: for pgtest.Need.
func Refused() error { return refused }
