package hosts

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/pgregent/regent/internal/sandbox"
)

// diskBytes are the sizes of small disks: a cluster fits, and what is written in a minute or two.
// A disk takes only as much memory as is written to it.
var diskBytes = map[sandbox.Disk]int64{
	sandbox.DataDisk: 512 << 20, sandbox.WALDisk: 64 << 20, sandbox.JournalDisk: 16 << 20, sandbox.RaftDisk: 16 << 20,
}

type diskOf struct {
	node string
	disk sandbox.Disk
}

// disk is a small file system.
type disk struct {
	dir  string
	size int64

	mu sync.Mutex // guards what follows
	// covers are the read-only mounts on top, the oldest first.
	covers []string
}

const diskFlags = unix.MS_NOSUID | unix.MS_NODEV

func mountPoint(cluster, node string, d sandbox.Disk) string {
	return filepath.Join(cluster, node, "disks", string(d))
}

func (s *Site) mount(node string, which sandbox.Disk) error {
	d := &disk{dir: mountPoint(s.Cluster.Dir(), node, which), size: diskBytes[which]}
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return fmt.Errorf("make the disk %s of %s: %w", which, node, err)
	}
	options := fmt.Sprintf("size=%d,mode=0700,uid=%d,gid=%d", d.size, os.Getuid(), os.Getgid())
	if err := unix.Mount("regent", d.dir, "tmpfs", diskFlags, options); err != nil {
		return fmt.Errorf("make the disk %s of %s: %w", which, node, err)
	}
	s.disks[diskOf{node, which}] = d
	return nil
}

func (s *Site) disk(node string, which sandbox.Disk) (*disk, error) {
	d := s.disks[diskOf{node, which}]
	if d == nil {
		return nil, fmt.Errorf("%s has no small disk %s: name it in the site's options", node, which)
	}
	return d, nil
}

// Fill takes all the space that is left on a node's disk, at once. Free gives it back.
func (s *Site) Fill(node string, which sandbox.Disk) error {
	d, err := s.disk(node, which)
	if err != nil {
		return err
	}
	if err := d.fill(); err != nil {
		return fmt.Errorf("fill the disk %s of %s: %w", which, node, err)
	}
	return nil
}

// Free undoes Fill.
func (s *Site) Free(node string, which sandbox.Disk) error {
	d, err := s.disk(node, which)
	if err != nil {
		return err
	}
	if err := d.resize(d.size); err != nil {
		return fmt.Errorf("free the disk %s of %s: %w", which, node, err)
	}
	return nil
}

// fill makes the disk as small as what is on it. Somebody may write meanwhile.
func (d *disk) fill() error {
	for tries := 0; ; tries++ {
		var st unix.Statfs_t
		if err := unix.Statfs(d.dir, &st); err != nil {
			return err
		}
		err := d.resize(max(int64(st.Blocks-st.Bfree), 1) * st.Bsize)
		if err == nil || !errors.Is(err, unix.EINVAL) || tries == 100 {
			return err
		}
	}
}

func (d *disk) resize(bytes int64) error {
	return unix.Mount("", d.dir, "", unix.MS_REMOUNT|diskFlags, fmt.Sprintf("size=%d", bytes))
}

// ReadOnly makes a node's disk refuse whoever opens a file for writing, or makes, renames or
// removes one. Who had a file open for writing before goes on writing to it: with that the kernel
// refuses to make a file system read-only, except when the device fails. So PostgreSQL notices at
// the next file, at the latest at its next start. Writable undoes it.
func (s *Site) ReadOnly(node string, which sandbox.Disk) error {
	d, err := s.disk(node, which)
	if err != nil {
		return err
	}
	if err := d.cover(); err != nil {
		return fmt.Errorf("make the disk %s of %s read-only: %w", which, node, errors.Join(err, d.uncover()))
	}
	return nil
}

// Writable undoes ReadOnly.
func (s *Site) Writable(node string, which sandbox.Disk) error {
	d, err := s.disk(node, which)
	if err != nil {
		return err
	}
	if err := d.uncover(); err != nil {
		return fmt.Errorf("make the disk %s of %s writable: %w", which, node, err)
	}
	return nil
}

// cover puts read-only mounts of themselves on the disk's folders: on those in its one folder
// first, for PostgreSQL works in that and asks for files by paths relative to it.
func (d *disk) cover() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	folder := filepath.Join(d.dir, "d")
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	var folders []string
	for _, e := range entries {
		if e.IsDir() {
			folders = append(folders, filepath.Join(folder, e.Name()))
		}
	}
	for _, f := range append(folders, folder) {
		if err := unix.Mount(f, f, "", unix.MS_BIND, ""); err != nil {
			return err
		}
		d.covers = append(d.covers, f)
		if err := unix.Mount("", f, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|diskFlags, ""); err != nil {
			return err
		}
	}
	return nil
}

func (d *disk) uncover() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	for len(d.covers) > 0 {
		last := len(d.covers) - 1
		if err := unix.Unmount(d.covers[last], unix.MNT_DETACH); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", d.covers[last], err))
		}
		d.covers = d.covers[:last]
	}
	return errors.Join(errs...)
}

func (d *disk) unmount() error {
	err := d.uncover()
	if gone := unix.Unmount(d.dir, unix.MNT_DETACH); gone != nil {
		err = errors.Join(err, fmt.Errorf("unmount %s: %w", d.dir, gone))
	}
	return err
}
