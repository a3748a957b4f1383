package sandbox

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// oldestPostgres is the oldest version that is supported; testedPostgres is the one that is
// taken when there is a choice.
const (
	oldestPostgres = 12
	testedPostgres = 15
)

// FindPostgres returns the folder of PostgreSQL's programs: where Debian's packages and PGDG's
// put servers, which is in no user's PATH, then PATH.
func FindPostgres() (string, error) {
	best, bestMajor := "", 0
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			continue
		}
		for _, dir := range found {
			name := filepath.Base(filepath.Dir(dir))
			major, err := strconv.Atoi(name[strings.LastIndexByte(name, '-')+1:])
			if err != nil || major < oldestPostgres || unix.Access(filepath.Join(dir, "initdb"), unix.X_OK) != nil {
				continue
			}
			if major == testedPostgres {
				return dir, nil
			}
			if major > bestMajor {
				best, bestMajor = dir, major
			}
		}
	}
	if best != "" {
		return best, nil
	}
	if initdb, err := exec.LookPath("initdb"); err == nil {
		if real, err := filepath.EvalSymlinks(initdb); err == nil {
			return filepath.Dir(real), nil
		}
	}
	return "", errors.New("no PostgreSQL server (12 or newer) in PATH, /usr/lib/postgresql or /usr/pgsql-*: " +
		"install it, on Debian with: apt-get install postgresql-15")
}
