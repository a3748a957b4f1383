package interop

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgregent/regent/internal/sandbox"
	"github.com/pgregent/regent/internal/sandbox/history"
	"github.com/pgregent/regent/internal/sandbox/workload"
	"github.com/pgregent/regent/pgmgr/pgtest"
)

// Options of a cluster.
type Options struct {
	// Store is etcd3 or consul.
	Store string
	// Members are what runs as n1, n2, and so on.
	Members []sandbox.Program
	// TTL, LoopWait and RetryTimeout; Patroni's least ones by default: 20, 1 and 3 s.
	TTL, LoopWait, RetryTimeout time.Duration
}

// Cluster is one scope with members of both programs. It belongs to one test, which ends it.
type Cluster struct {
	*sandbox.Cluster
	Store Store

	tb    testing.TB
	began time.Time
}

// patroni finds Patroni's programs, or skips the test.
func patroni(tb testing.TB, program string) string {
	tb.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		pgtest.Need(tb, fmt.Sprintf("%v (Debian: apt-get install patroni python3-etcd python3-consul)", err))
	}
	return path
}

// Start runs a store, and lays out a cluster on it. No member runs yet.
func Start(tb testing.TB, o Options) *Cluster {
	tb.Helper()
	program := patroni(tb, "patroni")
	if o.TTL == 0 {
		o.TTL, o.LoopWait, o.RetryTimeout = 20*time.Second, time.Second, 3*time.Second
	}
	c := &Cluster{tb: tb, began: time.Now()}
	section := c.startStore(o.Store)
	var err error
	c.Cluster, err = sandbox.New(sandbox.Options{
		Dir: filepath.Join(pgtest.SocketDir(tb), "c"), Bin: filepath.Dir(pgtest.Binary(tb, "regent")), PGBin: pgtest.BinDir(tb),
		Patroni: program, Nodes: len(o.Members), Store: section,
		TTL: o.TTL, LoopWait: o.LoopWait, RetryTimeout: o.RetryTimeout,
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(c.end)
	for i, n := range c.Nodes() {
		n.RunAs(o.Members[i])
	}
	return c
}

// end shows what the members said when the test failed, and ends everything. REGENT_INTEROP_LOGS
// names a folder for all that they said, failed or not.
func (c *Cluster) end() {
	if c.tb.Failed() {
		for _, n := range c.Nodes() {
			c.tb.Logf("%s (%s) said:\n%s", n.Name(), n.Program(), n.Tail(60))
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if all, err := c.Store.Keys(ctx); err == nil {
			for _, kv := range all {
				c.tb.Logf("%s", kv)
			}
		}
	}
	if dir := os.Getenv("REGENT_INTEROP_LOGS"); dir != "" {
		c.keepLogs(dir)
	}
	if err := c.Close(); err != nil {
		c.tb.Error(err)
	}
}

// keepLogs copies the members' whole logs and journals into a folder, for somebody to read.
func (c *Cluster) keepLogs(dir string) {
	for _, n := range c.Nodes() {
		to := filepath.Join(dir, strings.ReplaceAll(c.tb.Name(), "/", "-")+"-"+n.Name())
		content, err := os.ReadFile(n.LogFile())
		if err == nil {
			err = os.WriteFile(to+".log", content, 0o600)
		}
		if err == nil && n.Program() == sandbox.Regent {
			err = errors.Join(os.RemoveAll(to+".journal"), os.CopyFS(to+".journal", os.DirFS(n.JournalDir())))
		}
		if err != nil {
			c.tb.Log(err)
		}
	}
}

// Patronictl runs Patroni's command by the member's file, and returns all that it printed.
func (c *Cluster) Patronictl(ctx context.Context, n *sandbox.Node, args ...string) (string, error) {
	return c.command(ctx, n, patroni(c.tb, "patronictl"), args)
}

// Regent runs Regent's command by the member's file, and returns all that it printed.
func (c *Cluster) Regent(ctx context.Context, n *sandbox.Node, args ...string) (string, error) {
	return c.command(ctx, n, pgtest.Binary(c.tb, "regent"), args)
}

func (c *Cluster) command(ctx context.Context, n *sandbox.Node, program string, args []string) (string, error) {
	cmd := exec.CommandContext(ctx, program, append([]string{"-c", n.ConfigFile()}, args...)...)
	cmd.Dir = filepath.Dir(n.ConfigFile())
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s %s: %w: %s", filepath.Base(program), strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// Load is a writer on the cluster, and a watcher of its members' roles.
type Load struct {
	*workload.Writer
	Watcher *workload.Watcher

	c    *Cluster
	stop context.CancelFunc
	work sync.WaitGroup
	errs [2]error
}

// Load starts them. They run until End.
func (c *Cluster) Load(ctx context.Context) *Load {
	l := &Load{
		Writer:  workload.NewWriter(workload.WriterConfig{DSN: c.DSN(), Nodes: c.PortNames(), Origin: c.began}),
		Watcher: workload.NewWatcher(c.began, c.Targets()),
		c:       c,
	}
	ctx, l.stop = context.WithCancel(ctx)
	l.work.Go(func() { l.errs[0] = l.Writer.Run(ctx) })
	l.work.Go(func() { l.errs[1] = l.Watcher.Run(ctx) })
	c.tb.Cleanup(func() { l.stop(); l.work.Wait() })
	return l
}

// Now is the present moment in the load's own time.
func (l *Load) Now() time.Duration { return time.Since(l.c.began) }

// Gap is the longest time without an acknowledged row since then.
func (l *Load) Gap(since time.Duration) time.Duration {
	return l.Log().LongestGap(since, l.Now()).Length()
}

// Figures are what a load came to.
type Figures struct {
	Acked, Lost int
	// Unknown are inserts without an answer, each a transaction that failed for its client.
	Unknown int
	Longest time.Duration
}

// String is for reports.
func (f Figures) String() string {
	return fmt.Sprintf("%d rows acknowledged, %d of them lost; %d transactions failed; longest time without a row %v",
		f.Acked, f.Lost, f.Unknown, f.Longest.Round(time.Millisecond))
}

// End stops the load and counts. Two members that accepted writes at one time are an error.
func (l *Load) End(ctx context.Context) (Figures, error) {
	l.stop()
	l.work.Wait()
	log := l.Log()
	f := Figures{Acked: len(log.Acks), Unknown: len(log.Unknown)}
	if f.Acked > 0 {
		f.Longest = log.LongestGap(log.Acks[0].Acked, log.Acks[f.Acked-1].Acked).Length()
	}
	err := errors.Join(l.errs[:]...)
	for _, o := range history.Overlaps(append(l.Watcher.Spans(), l.Spans()...)) {
		if o.Proven {
			err = errors.Join(err, fmt.Errorf("two primaries: %s", o))
		}
	}
	rows, failed := workload.Rows(ctx, l.c.DSN(), workload.Table)
	f.Lost = len(log.Missing(rows))
	return f, errors.Join(err, failed)
}
