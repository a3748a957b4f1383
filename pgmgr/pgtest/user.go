package pgtest

import (
	"errors"
	"fmt"
	"io"
	"os"
	osuser "os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// user is whom the tests run as.
type user struct {
	name     string
	uid, gid uint32
	switched bool // it isn't the user who started the tests
}

// testUser picks the user: the current one, unless that is root, whom PostgreSQL
// refuses.
func testUser() (user, error) {
	if uid := os.Getuid(); uid != 0 {
		u := user{name: strconv.Itoa(uid), uid: uint32(uid), gid: uint32(os.Getgid())}
		if known, err := osuser.Current(); err == nil {
			u.name = known.Username
		}
		return u, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		found, err := osuser.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(found.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(found.Gid, 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return user{}, fmt.Errorf("look up user %s: %w", name, err)
		}
		return user{name: name, uid: uint32(uid), gid: uint32(gid), switched: true}, nil
	}
	return user{}, errors.New("running as root, and there is neither a user postgres nor nobody to run PostgreSQL as")
}

// workDir is the folder the tests run in: the package's own where who can reach
// it, else a copy of its testdata (a clone below another user's home).
func workDir(dir string, who user) (string, error) {
	here, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the package's folder: %w", err)
	}
	if !who.switched || reachable(here, who) {
		return here, nil
	}
	work := filepath.Join(dir, "work")
	if err := os.Mkdir(work, 0o755); err != nil {
		return "", fmt.Errorf("make work folder: %w", err)
	}
	data := filepath.Join(here, "testdata")
	if _, err := os.Stat(data); errors.Is(err, os.ErrNotExist) {
		return work, nil
	}
	if err := os.CopyFS(filepath.Join(work, "testdata"), os.DirFS(data)); err != nil {
		return "", fmt.Errorf("copy testdata: %w", err)
	}
	return work, nil
}

// reachable reports whether who may enter dir and every folder above it.
func reachable(dir string, who user) bool {
	for d := dir; ; d = filepath.Dir(d) {
		info, err := os.Stat(d)
		if err != nil {
			return false
		}
		mode := info.Mode().Perm()
		st, ok := info.Sys().(*syscall.Stat_t)
		switch {
		case ok && st.Uid == who.uid:
			mode >>= 6
		case ok && st.Gid == who.gid:
			mode >>= 3
		}
		if mode&0o5 != 0o5 {
			return false
		}
		if d == filepath.Dir(d) {
			return true
		}
	}
}

// outputs are the files that go test asked this binary to write, and where the
// tests wrote them instead: the other user may not write into root's folders.
type outputs []struct{ from, to string }

// redirectOutputs rewrites the flags that name output files to files in out. The
// test log is dropped: it serves go test's cache, and a result that depends on
// servers must not be cached.
func redirectOutputs(args []string, out string) ([]string, outputs) {
	var kept []string
	var moved outputs
	outputDir := ""
	for _, a := range args {
		if dir, ok := strings.CutPrefix(a, "-test.outputdir="); ok {
			outputDir = dir
		}
	}
	for _, a := range args {
		name, value, _ := strings.Cut(strings.TrimLeft(a, "-"), "=")
		switch name {
		case "test.testlogfile", "test.outputdir":
		case "test.coverprofile", "test.cpuprofile", "test.memprofile", "test.blockprofile",
			"test.mutexprofile", "test.trace", "test.gocoverdir":
			to := value
			if !filepath.IsAbs(to) {
				to = filepath.Join(outputDir, to)
			}
			from := filepath.Join(out, name)
			if name == "test.gocoverdir" {
				// The runtime wants an existing folder; out is one.
				from = out
			}
			kept = append(kept, "-"+name+"="+from)
			moved = append(moved, struct{ from, to string }{from, to})
		default:
			kept = append(kept, a)
		}
	}
	return kept, moved
}

// bringBack copies the written files to where go test expects them.
func (o outputs) bringBack() error {
	for _, f := range o {
		info, err := os.Stat(f.from)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("bring back %s: %w", f.to, err)
		}
		if !info.IsDir() {
			if err := copyFile(f.from, f.to, 0o644); err != nil {
				return fmt.Errorf("bring back %s: %w", f.to, err)
			}
			continue
		}
		found, err := filepath.Glob(filepath.Join(f.from, "cov*"))
		if err != nil {
			return fmt.Errorf("bring back %s: %w", f.to, err)
		}
		for _, c := range found {
			if err := copyFile(c, filepath.Join(f.to, filepath.Base(c)), 0o644); err != nil {
				return fmt.Errorf("bring back %s: %w", f.to, err)
			}
		}
	}
	return nil
}

// copyFile copies one regular file.
func copyFile(from, to string, mode os.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // read only: nothing to lose
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
