package pgtest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// diskName is the mount point of the small disk in the run's folder, diskBytes its size: a
// PostgreSQL with segments of 1 MB fits, and fills it within seconds.
const (
	diskName  = "disk"
	diskBytes = 24 << 20
)

// mountDisk gives the tests a small file system, before they lose the right to mount one. It
// lies in a mount namespace of this thread and its children, so that it ends with them. Where
// it is refused there is none, and SmallDisk says so.
func mountDisk(dir string, who user) {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return
	}
	_ = unix.Mount("regent-test", filepath.Join(dir, diskName), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV,
		fmt.Sprintf("size=%d,mode=0755,uid=%d,gid=%d", diskBytes, who.uid, who.gid)) // see SmallDisk
}

// unmountDisk undoes mountDisk, whatever is still open on it.
func unmountDisk(dir string) {
	_ = unix.Unmount(filepath.Join(dir, diskName), unix.MNT_DETACH) // there may be none
}

// SmallDisk returns an empty folder that is a file system of its own, of 24 MB, and a function
// that takes all the space that is left on it and returns one that gives it back. Only one test
// at a time can have it; when that ends, what is on it is removed. It takes root to mount one.
func SmallDisk(t testing.TB) (dir string, fill func() (free func())) {
	t.Helper()
	disk := filepath.Join(root(t), diskName)
	var st unix.Statfs_t
	if err := unix.Statfs(disk, &st); err != nil || st.Blocks*uint64(st.Bsize) > diskBytes {
		Need(t, "no small file system could be mounted: that takes root, and a mount namespace")
	}
	dir = filepath.Join(disk, "d")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatalf("take the small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("empty the small disk: %v", err)
		}
	})
	return dir, func() (free func()) {
		t.Helper()
		filler := filepath.Join(dir, "filler")
		err := os.WriteFile(filler, []byte(strings.Repeat("x", diskBytes+1)), 0o600)
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("fill %s: %v", dir, err)
		}
		return func() {
			if err := os.Remove(filler); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Error(err)
			}
		}
	}
}
