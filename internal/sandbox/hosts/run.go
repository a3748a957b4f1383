package hosts

import (
	"errors"
	"fmt"
	"os"
)

// refusedEnv tells the tests why they run outside of any namespaces.
const refusedEnv = "REGENT_HOSTS_REFUSED"

// Run runs the tests in namespaces, and returns their exit code; pgtest.MainIn takes it. Where
// there are none to be had they run without, and those that need some say so by Need.
func Run(tests func() int) int {
	inside, code, err := Enter()
	switch {
	case inside:
		return tests()
	case errors.Is(err, ErrUnavailable):
		if err := os.Setenv(refusedEnv, err.Error()); err != nil {
			return 1
		}
		return tests()
	case err != nil:
		_, _ = fmt.Fprintln(os.Stderr, "hosts:", err)
		return max(code, 1)
	default:
		return code
	}
}

// Refused is why there are no namespaces here, nil where there are: for pgtest.Need.
func Refused() error {
	if why := os.Getenv(refusedEnv); why != "" {
		return errors.New(why)
	}
	return nil
}
