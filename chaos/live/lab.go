package live

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/pgregent/regent/chaos"
	"github.com/pgregent/regent/internal/sandbox"
	"github.com/pgregent/regent/internal/sandbox/hosts"
)

// labKey tells clusters apart that can't take each other's rows.
type labKey struct {
	store   sandbox.StoreKind
	fencing string
	servers int  // of the store; 0: the embedded one
	disks   bool // pg_wal lies on small disks
	program sandbox.Program
}

// lab is a cluster on its store, written to and watched, on which rows are replayed one after the
// other for as long as every promise is kept.
type lab struct {
	key     labKey
	dir     string
	opt     sandbox.Options
	cluster *sandbox.Cluster
	stores  *sandbox.Stores // nil: the embedded store
	arena   *chaos.Arena
	site    *hosts.Site // nil: all are on this host, without cables and disks of their own
	links   map[string][]*hosts.Link

	lost      []int64 // rows that went missing in earlier rows, sorted
	witnesses []*witness

	stop   context.CancelFunc // ends the load
	load   sync.WaitGroup
	loaded error // how it ended
}

// Pace is which timings the clusters have.
type Pace string

// The paces.
const (
	// Fast: the shortest that the store allows, but for etcd, which gets a ttl of 5 s.
	Fast Pace = ""
	// Slow: those of the document whose table it is.
	Slow Pace = "slow"
	// Beside: the shortest that Patroni takes.
	Beside Pace = "beside Patroni"
)

// Timings of the suite on a store.
func (p Pace) Timings(k sandbox.StoreKind) (ttl, loopWait, retryTimeout time.Duration) {
	switch p {
	case Slow:
		return 30 * time.Second, 10 * time.Second, 10 * time.Second
	case Beside:
		return besideTTL, besideLoopWait, besideRetryTimeout
	case Fast:
	}
	ttl, loopWait, retryTimeout = k.Timings()
	if k == sandbox.Etcd3Store {
		ttl = 5 * time.Second
	}
	return ttl, loopWait, retryTimeout
}

// newLab makes a cluster in a folder, starts it and loads it. Close ends it, also after an error.
func newLab(ctx context.Context, key labKey, o Options, dir string) (*lab, error) {
	l := &lab{key: key, dir: dir, links: map[string][]*hosts.Link{}}
	ttl, loopWait, retryTimeout := o.Pace.Timings(key.store)
	l.opt = sandbox.Options{Bin: o.Bin, PGBin: o.PGBin, TTL: ttl, LoopWait: loopWait, RetryTimeout: retryTimeout}
	if key.program == sandbox.Patroni {
		l.opt.Patroni = o.Patroni
	}
	raise := l.beside
	if hosts.Inside() {
		raise = l.onHosts
	}
	if err := raise(ctx, o.Programs[key.store]); err != nil {
		return l, err
	}
	l.opt.Dir = l.cluster.Dir()
	for _, n := range l.cluster.Nodes() {
		n.RunAs(key.program)
		if err := l.fit(n); err != nil {
			return l, err
		}
	}
	l.arena = chaos.NewArena(l.cluster)
	l.stand()
	if err := l.cluster.PowerOn(); err != nil {
		return l, err
	}
	load, stop := context.WithCancel(context.WithoutCancel(ctx))
	l.stop = stop
	l.load.Go(func() {
		l.loaded = l.arena.Run(load, l.testify)
	})
	return l, nil
}

// onHosts gives every member and every server of the store a host of its own.
func (l *lab) onHosts(ctx context.Context, program string) (err error) {
	var disks []sandbox.Disk
	if l.key.disks {
		disks = []sandbox.Disk{sandbox.WALDisk}
	}
	l.site, err = hosts.Raise(ctx, hosts.Options{
		Dir: l.dir, Cluster: l.opt, Store: l.key.store, Program: program, Members: l.key.servers, Disks: disks,
	})
	if err == nil {
		l.cluster, l.stores = l.site.Cluster, l.site.Stores
	}
	return err
}

// beside has all of them on this host.
func (l *lab) beside(ctx context.Context, program string) (err error) {
	if err := os.Mkdir(l.dir, 0o755); err != nil {
		return fmt.Errorf("make the row's folder: %w", err)
	}
	if l.key.servers > 0 {
		l.stores, err = sandbox.StartStores(ctx, sandbox.StoreOptions{
			Kind: l.key.store, Program: program, Dir: filepath.Join(l.dir, "s"), Members: l.key.servers,
		})
		if err != nil {
			return err
		}
		l.opt.StoreOf = l.stores.SectionOf
	}
	l.opt.Dir = filepath.Join(l.dir, "c")
	l.cluster, err = sandbox.New(l.opt)
	return err
}

// launchFile is in a node's run folder; the launcher does what it says.
const launchFile = "launch"

// launcher stands where PostgreSQL's program would, and becomes it. Who only asks for the version
// or a setting is always answered.
const launcher = `#!/bin/sh
case " $* " in
*" --version "*|*" -V "*|*" -C "*) ;;
*)
	word=; read -r word 2>/dev/null <'%[1]s'
	case "$word" in
	hang) exec sleep 1000000;;
	fail) echo 'FATAL:  the launcher was told that this start fails' >&2; exit 1;;
	esac;;
esac
exec '%[2]s/postgres' "$@"
`

// fit gives the node its launcher and its fencing.
func (l *lab) fit(n *sandbox.Node) error {
	if l.key.fencing != "keeper" {
		if err := n.AmendConfig("regent:\n  run_dir:", "regent:\n  fencing: "+l.key.fencing+"\n  run_dir:"); err != nil {
			return err
		}
	}
	bin := filepath.Join(filepath.Dir(n.ConfigFile()), "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		return fmt.Errorf("make the launcher of %s: %w", n.Name(), err)
	}
	programs, err := os.ReadDir(l.opt.PGBin)
	if err != nil {
		return fmt.Errorf("make the launcher of %s: %w", n.Name(), err)
	}
	for _, p := range programs {
		if p.Name() != "postgres" {
			err = errors.Join(err, os.Symlink(filepath.Join(l.opt.PGBin, p.Name()), filepath.Join(bin, p.Name())))
		}
	}
	flag := filepath.Join(n.RunDir(), launchFile)
	err = errors.Join(err, os.WriteFile(flag, nil, 0o600),
		os.WriteFile(filepath.Join(bin, "postgres"), fmt.Appendf(nil, launcher, flag, l.opt.PGBin), 0o755))
	if err != nil {
		return fmt.Errorf("make the launcher of %s: %w", n.Name(), err)
	}
	return n.AmendConfig("  bin_dir: "+l.opt.PGBin+"\n", "  bin_dir: "+bin+"\n")
}

// close ends everything. The folder stays when it is to be kept.
func (l *lab) close(keep bool) error {
	var errs []error
	if l.stop != nil {
		l.stop()
		l.load.Wait()
		errs = append(errs, l.loaded)
	}
	if l.site != nil {
		if keep {
			l.site.KeepFolder()
		}
		return errors.Join(append(errs, l.site.Close())...)
	}
	if l.cluster != nil {
		if keep {
			l.cluster.KeepFolder()
		}
		errs = append(errs, l.cluster.Close())
	}
	if l.stores != nil {
		errs = append(errs, l.stores.Close())
	}
	if !keep {
		errs = append(errs, os.RemoveAll(l.dir))
	}
	return errors.Join(errs...)
}

// maxBehind is how much WAL a member that streams may lack: what is under way. One whose cable was
// cut is called streaming by the primary until a connection breaks, however much it lacks.
const maxBehind = 256 << 10

// streaming returns the primary and the members that stream from it and keep up.
func (l *lab) streaming(ctx context.Context) (*sandbox.Node, []string, error) {
	primary, err := l.cluster.Primary(ctx)
	if err != nil {
		return nil, nil, err
	}
	var names []string
	err = query(ctx, primary, `SELECT coalesce(array_agg(DISTINCT application_name), '{}') FROM pg_stat_replication
		WHERE state = 'streaming' AND pg_wal_lsn_diff(pg_current_wal_flush_lsn(), flush_lsn) < $1`, &names, maxBehind)
	names = slices.DeleteFunc(names, func(name string) bool { return l.cluster.Node(name) == nil })
	return primary, names, err
}

// allStream returns why not all members stream.
func (l *lab) allStream(ctx context.Context) error {
	primary, names, err := l.streaming(ctx)
	if err == nil && len(names) != len(l.cluster.Nodes())-1 {
		err = fmt.Errorf("%s is primary, and only %v stream from it and keep up", primary.Name(), names)
	}
	return err
}

// wholeNow returns why the cluster isn't whole.
func (l *lab) wholeNow(ctx context.Context) error {
	if err := l.allStream(ctx); err != nil {
		return err
	}
	for _, n := range l.cluster.Nodes() {
		s, err := n.Status(ctx)
		if err != nil {
			return err
		}
		if s.State != "running" || s.Pause {
			return fmt.Errorf("the agent of %s says %q (pause: %v)", n.Name(), s.State, s.Pause)
		}
	}
	if last := l.arena.Writer.Last(); time.Since(l.arena.Origin)-last.Acked > time.Second {
		return fmt.Errorf("the latest write was acknowledged at %s", last.Acked.Round(time.Millisecond))
	}
	return nil
}

// timeline is the one that the primary writes.
func (l *lab) timeline(ctx context.Context) (uint64, error) {
	primary, err := l.cluster.Primary(ctx)
	if err != nil {
		return 0, err
	}
	var hex string
	if err := query(ctx, primary, `SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)`, &hex); err != nil {
		return 0, err
	}
	return strconv.ParseUint(hex, 16, 32)
}

// pollEvery is the time between two looks at a condition, trapEvery at a trap's.
const (
	pollEvery = 20 * time.Millisecond
	trapEvery = time.Millisecond
)

// pause waits for d; it returns why ctx ended if that was first.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(max(d, 0))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
