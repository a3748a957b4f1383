package etcdtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Version of etcd to test with.
type Version string

// The two: Debian's package, and the one that internal/tools/etcd builds.
const (
	V34 Version = "3.4"
	V36 Version = "3.6"
)

// Binary returns the path of a server of this version. Without one the test is skipped with
// the reason, and fails where CI is set. REGENT_ETCD_34 and REGENT_ETCD_36 name others.
func Binary(tb testing.TB, v Version) string {
	tb.Helper()
	path, err := Find(v)
	switch {
	case err == nil:
		return path
	case os.Getenv("CI") != "":
		tb.Fatalf("etcd %s: %v", v, err)
	default:
		tb.Skipf("etcd %s: %v", v, err)
	}
	return ""
}

// Variable names the environment's variable for the path of a server of this version.
func (v Version) Variable() string { return "REGENT_ETCD_" + strings.ReplaceAll(string(v), ".", "") }

// Find returns the path of a server of this version: the one that the variable names, one beside
// this program (see package storetest), one that was built, or that of PATH.
func Find(v Version) (string, error) {
	var candidates []string
	if named := os.Getenv(v.Variable()); named != "" {
		candidates = append(candidates, named)
	}
	if self, err := os.Executable(); err == nil {
		candidates = append(candidates, filepath.Join(filepath.Dir(self), "etcd"))
	}
	if cache, err := cacheDir(); err == nil {
		built, err := filepath.Glob(filepath.Join(cache, "regent", "etcd-"+string(v)+".*", "etcd"))
		if err != nil {
			return "", err
		}
		candidates = append(candidates, built...)
	}
	candidates = append(candidates, "etcd")
	for _, c := range candidates {
		path, err := exec.LookPath(c)
		if err != nil {
			continue
		}
		out, err := exec.Command(path, "--version").Output()
		if err == nil && strings.HasPrefix(string(out), "etcd Version: "+string(v)+".") {
			return path, nil
		}
	}
	return "", fmt.Errorf("no such server is installed (`make setup` gets it)")
}

func cacheDir() (string, error) {
	if dir := os.Getenv("XDG_CACHE_HOME"); dir != "" {
		return dir, nil
	}
	home, err := os.UserHomeDir()
	return filepath.Join(home, ".cache"), err
}
