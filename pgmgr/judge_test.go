package pgmgr

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/pgmgr/keeper"
)

// checkpointed runs the first checkpoint after a promotion.
func (n *node) checkpointed() *node {
	n.t.Helper()
	n.must("checkpoint", n.Checkpoint(n.ctx()))
	return n
}

// rejoin starts a node as a replica and waits until it streams: the only proof
// that a verdict or a rewind was right.
func (n *node) rejoin(of *node) {
	n.t.Helper()
	n.startReplica(of)
	of.insert(1)
	n.awaitStreaming(of)
	if st := n.observe(); st.Timeline != of.observe().Timeline {
		n.t.Errorf("%s is on timeline %d after rejoining", n.name, st.Timeline)
	}
}

func TestCleanlyStoppedPrimaryFollowsItsSuccessor(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a").startPrimary()
	b := replicaOf(t, "b", a)
	a.insert(100)
	a.stop()
	end, checkpoint, err := a.ShutdownLSN(a.ctx())
	a.must("find the end", err)
	b.eventually("has the shutdown checkpoint", func() error {
		if FlushedLSN(b.observe()) < end {
			return errNoRecord
		}
		return nil
	})
	b.promote()
	b.insert(10)
	d := a.wantVerdict(b, events.VerdictFollow)
	if d.ForkLSN != end || d.LocalLSN != checkpoint || d.LocalTimeline != 1 || d.UpstreamTimeline != 2 {
		t.Errorf("divergence %+v; the WAL ends at %s, its checkpoint is at %s", d, end, checkpoint)
	}
	a.rejoin(b)
	a.wantVerdict(b, events.VerdictFollow)
}

func TestCrashedPrimaryWithoutExtraWALFollows(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a").startPrimary()
	b := replicaOf(t, "b", a)
	a.insert(100)
	b.awaitReplayed(a)
	a.kill()
	b.promote()
	a.wantVerdict(b, events.VerdictFollow)
	a.rejoin(b)
}

func TestCrashedPrimaryWithExtraWALIsRewound(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a").startPrimary()
	b := replicaOf(t, "b", a)
	diverge(t, a, b)
	a.kill()
	b.promote()
	a.wantVerdict(b, events.VerdictWait)
	a.wantClass("rewind before the upstream's checkpoint", a.Rewind(a.ctx(), b.upstream()), ErrUnavailable)
	b.checkpointed()
	a.wantVerdict(b, events.VerdictRewind)
	a.must("rewind", a.Rewind(a.ctx(), b.upstream()))
	a.wantVerdict(b, events.VerdictFollow)
	a.must("rewind again", a.Rewind(a.ctx(), b.upstream()))
	a.wantClass("start a rewound directory as a primary", a.Start(a.ctx(), StartOptions{Grant: longGrant()}), ErrRefused)
	a.rejoin(b)
	if got := a.sql("SELECT count(*) FROM t WHERE i = -1"); got != "0" {
		t.Errorf("%s of the lost rows are still here", got)
	}
}

// diverge commits on a what b never gets.
func diverge(t *testing.T, a, b *node) {
	t.Helper()
	a.insert(100)
	b.awaitReplayed(a)
	b.must("detach", b.Follow(b.ctx(), nil))
	a.sql("INSERT INTO t SELECT -1 FROM generate_series(1, 100)")
}

// A primary prepares segments for later. pg_waldump takes whichever file the folder
// lists first for a sample of all, and a prepared one says nothing.
func TestSegmentsOfZerosDoNotHideWAL(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a").startPrimary()
	b := replicaOf(t, "b", a)
	diverge(t, a, b)
	a.kill()
	c, err := a.Control(a.ctx())
	a.must("read the control file", err)
	for i := range 40 {
		name := c.walFile(c.CheckpointTL, c.CheckpointLSN+events.LSN(int64(i+1)*int64(c.WALSegmentSize)))
		path := filepath.Join(a.config().DataDir, "pg_wal", name)
		if exists(path) {
			continue
		}
		a.must("prepare a segment", os.WriteFile(path, nil, 0o600))
		a.must("prepare a segment", os.Truncate(path, int64(c.WALSegmentSize)))
	}
	b.promote()
	b.checkpointed()
	a.wantVerdict(b, events.VerdictRewind)
	past := c.CheckpointLSN + events.LSN(30*int64(c.WALSegmentSize))
	if r, err := a.walRecordAt(a.ctx(), c, c.CheckpointTL, past); !errors.Is(err, errNoRecord) {
		t.Errorf("record in a segment of zeros: %+v, %v", r, err)
	}
}

func TestCleanlyStoppedPrimaryWithExtraWALIsRewound(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a").startPrimary()
	b := replicaOf(t, "b", a)
	diverge(t, a, b)
	a.stop()
	b.promote()
	b.checkpointed()
	a.wantVerdict(b, events.VerdictRewind)
	a.must("rewind", a.Rewind(a.ctx(), b.upstream()))
	a.rejoin(b)
}

func TestReplicaAheadOfTheNewPrimaryIsRewound(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a").startPrimary()
	b, c := replicaOf(t, "b", a), replicaOf(t, "c", a)
	diverge(t, a, b)
	c.awaitReplayed(a)
	a.kill()
	b.promote()
	b.checkpointed()
	up := b.upstream()
	running := c.wantVerdict(b, events.VerdictRewind)
	if running.LocalLSN <= running.ForkLSN {
		t.Errorf("running: %+v", running)
	}
	c.must("follow", c.Follow(c.ctx(), &up))
	c.kill() // in archive recovery: the control file knows less than pg_wal
	c.wantVerdict(b, events.VerdictRewind)
	c.must("rewind", c.Rewind(c.ctx(), b.upstream()))
	c.rejoin(b)
}

func TestUpstreamOnTheSameTimelineIsFollowed(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a").startPrimary()
	b := replicaOf(t, "b", a)
	b.wantVerdict(a, events.VerdictFollow)
	b.stop()
	b.wantVerdict(a, events.VerdictFollow)
	b.startReplica(a)
	b.kill()
	d := b.wantVerdict(a, events.VerdictFollow)
	if d.LocalTimeline != 1 || d.UpstreamTimeline != 1 {
		t.Errorf("divergence %+v", d)
	}
	b.rejoin(a)
}

func TestUpstreamInRecoveryCannotBeJudged(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a").startPrimary()
	b := replicaOf(t, "b", a)
	a.stop()
	a.wantVerdict(b, events.VerdictWait)
}

func TestAnotherClusterIsBroken(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a").startPrimary()
	b := emptyNode(t, "b")
	b.must("bootstrap", b.Bootstrap(b.ctx()))
	_, err := b.Judge(b.ctx(), a.upstream())
	b.wantClass("judge against another cluster", err, ErrBroken)
	b.wantClass("rewind to another cluster", b.Rewind(b.ctx(), a.upstream()), ErrBroken)
	b.wantClass("clone over another cluster", b.Clone(b.ctx(), a.upstream(), CloneOptions{Replace: true}), ErrBroken)
	if st := b.observe(); st.Data.Content != events.DataCluster {
		t.Errorf("the directory was touched: %+v", st.Data)
	}
}

func TestUnreachableUpstreamIsUnavailable(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a").startPrimary()
	b := replicaOf(t, "b", a)
	b.stop()
	a.kill()
	_, err := b.Judge(b.ctx(), a.upstream())
	b.wantClass("judge", err, ErrUnavailable)
	b.wantClass("rewind", b.Rewind(b.ctx(), a.upstream()), ErrUnavailable)
	b.wantClass("clone", b.Clone(b.ctx(), a.upstream(), CloneOptions{Replace: true}), ErrUnavailable)
	if st := b.observe(); st.Data.Content != events.DataCluster {
		t.Errorf("the directory was touched: %+v", st.Data)
	}
}

// rogue promotes a replica behind everybody's back and stops it before its first
// checkpoint on the new timeline (S23).
func rogue(t *testing.T, a, b *node) {
	t.Helper()
	a.insert(10)
	b.awaitReplayed(a)
	// The checkpointer would make the checkpoint that mustn't be there.
	checkpointer, err := strconv.Atoi(b.sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'"))
	b.must("find the checkpointer", err)
	b.must("stop the checkpointer", syscall.Kill(checkpointer, syscall.SIGSTOP))
	b.sql("SELECT pg_promote(false)")
	b.eventually("is promoted", func() error {
		if got, err := b.trySQL("SELECT pg_is_in_recovery()"); err != nil || got != "f" {
			return errNoRow
		}
		return nil
	})
	b.sql("INSERT INTO t SELECT -1 FROM generate_series(1, 10)")
	b.kill()
	c, err := b.Control(b.ctx())
	b.must("read control data", err)
	if c.CheckpointTL != 1 || c.Timeline() != 2 {
		t.Fatalf("the scene isn't set: control data %+v", c)
	}
}

func TestPromotedBehindOurBackIsRewound(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a").startPrimary()
	b := replicaOf(t, "b", a)
	rogue(t, a, b)
	a.insert(10)
	d := b.wantVerdict(a, events.VerdictRewind)
	if d.LocalTimeline != 2 || d.UpstreamTimeline != 1 {
		t.Errorf("divergence %+v", d)
	}
	b.must("rewind", b.Rewind(b.ctx(), a.upstream()))
	b.rejoin(a)
	if got := b.sql("SELECT count(*) FROM t WHERE i = -1"); got != "0" {
		t.Errorf("%s rows of the wrong timeline are still here", got)
	}
}

func TestPromotedBehindOurBackAndStartedAgainIsRewound(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a").startPrimary()
	b := replicaOf(t, "b", a)
	rogue(t, a, b)
	// Started as a replica it loops for ever, and stopped cleanly it fools pg_rewind.
	b.startReplica(a)
	b.wantVerdict(a, events.VerdictRewind)
	b.stop()
	if c, err := b.Control(b.ctx()); err != nil || !c.Clean() || c.CheckpointTL != 1 {
		t.Fatalf("the scene isn't set: %+v, %v", c, err)
	}
	b.wantVerdict(a, events.VerdictRewind)
	b.must("rewind", b.Rewind(b.ctx(), a.upstream()))
	b.rejoin(a)
}

func TestSameTimelineNumberOfAnotherPromotionIsRewound(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a").startPrimary()
	b, c := replicaOf(t, "b", a), replicaOf(t, "c", a)
	rogue(t, a, b)
	a.insert(50)
	c.awaitReplayed(a)
	a.stop()
	c.promote()
	c.checkpointed()
	d := b.wantVerdict(c, events.VerdictRewind)
	if d.LocalTimeline != 2 || d.UpstreamTimeline != 2 {
		t.Errorf("divergence %+v", d)
	}
	// Both are on timeline 2: pg_rewind sees nothing to do, and must not be believed.
	b.wantClass("rewind", b.Rewind(b.ctx(), c.upstream()), ErrRefused)
	b.must("clone", b.Clone(b.ctx(), c.upstream(), CloneOptions{Replace: true}))
	b.rejoin(c)
}

// b takes over after a clean hand-over and dies before anybody has heard of its timeline
// and before its first checkpoint. a takes over again, where it had stopped: its new
// timeline has b's number and b's history, letter for letter.
func TestTimelinesOfOneNumberThatBeganAtOnePlaceAreToldApart(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a").startPrimary()
	b := replicaOf(t, "b", a)
	a.insert(100)
	b.awaitReplayed(a)
	a.stop()
	end, _, err := a.ShutdownLSN(a.ctx())
	a.must("find the end", err)
	b.eventually("has the shutdown checkpoint", func() error {
		if FlushedLSN(b.observe()) < end {
			return errNoRecord
		}
		return nil
	})
	checkpointer, err := strconv.Atoi(b.sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'"))
	b.must("find the checkpointer", err)
	b.must("hold the checkpoint back", syscall.Kill(checkpointer, syscall.SIGSTOP))
	first := b.promote()
	b.insert(10)
	b.kill()

	a.startReplica(b)
	if second := a.promote(); second != first {
		t.Fatalf("a took timeline %d, b had %d: there is nothing to tell apart", second, first)
	}
	a.insert(1000)
	a.checkpointed()
	d := b.wantVerdict(a, events.VerdictRewind)
	if d.LocalTimeline != d.UpstreamTimeline || d.LocalLSN >= a.observe().Position {
		t.Errorf("divergence %+v: only the WAL's content was to tell", d)
	}
	b.wantClass("rewind", b.Rewind(b.ctx(), a.upstream()), ErrRefused)
	b.must("clone", b.Clone(b.ctx(), a.upstream(), CloneOptions{Replace: true}))
	b.rejoin(a)
	b.wantVerdict(a, events.VerdictFollow)
}

// halfReceive leaves what a walreceiver leaves that hears of a new timeline and is cut off
// in the middle of its first segment: the history file, and zeros from some place on.
func (n *node) halfReceive(tl events.Timeline) {
	n.t.Helper()
	fork, err := events.ParseLSN(n.sql("SELECT pg_last_wal_replay_lsn()"))
	n.must("parse the position", err)
	c, err := n.Control(n.ctx())
	n.must("read the control file", err)
	wal := filepath.Join(n.config().DataDir, "pg_wal")
	content, err := os.ReadFile(filepath.Join(wal, c.walFile(tl-1, fork)))
	n.must("read the parent's segment", err)
	for i := 8192; i < len(content); i++ {
		content[i] = 0
	}
	n.must("write the segment", os.WriteFile(filepath.Join(wal, c.walFile(tl, fork)), content, 0o600))
	history := fmt.Sprintf("%d\t%s\tno recovery target specified\n", tl-1, fork)
	n.must("write the history", os.WriteFile(filepath.Join(wal, historyFile(tl)), []byte(history), 0o600))
}

func TestHalfReceivedTimelineDoesNotKeepAStandbyFromPromotionAndFollowing(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a").startPrimary()
	b, c := replicaOf(t, "b", a), replicaOf(t, "c", a)
	a.insert(1000)
	b.awaitReplayed(a)
	c.awaitReplayed(a)
	a.stop()
	for _, n := range []*node{b, c} {
		n.must("leave the dead primary", n.Follow(n.ctx(), nil))
		n.halfReceive(2)
	}
	c.stop()
	// PostgreSQL looks for new timelines each wal_retrieve_retry_interval. Promoted before
	// that, b makes 3 a child of 1, and c, which has looked, can't follow: the history file
	// is to be set aside then (TestHistoryFileOfAPromotionThatCameToNothingIsSetAside).
	b.awaitTarget(2)
	if tl := b.promote(); tl != 3 {
		t.Errorf("b promoted to timeline %d; 2 has been somebody's", tl)
	}
	b.insert(10)
	b.checkpointed()

	// c heard of timeline 2 as well, and was down since.
	c.wantVerdict(b, events.VerdictFollow)
	c.rejoin(b)
}

// awaitTarget waits until the standby has seen the history file of a timeline, and would
// promote to a child of that.
func (n *node) awaitTarget(tl events.Timeline) {
	n.t.Helper()
	said := fmt.Sprintf("new target timeline is %d", tl)
	n.eventually("says: "+said, func() error {
		log, err := os.ReadFile(n.config().logFile())
		if err == nil && !strings.Contains(string(log), said) {
			err = errors.New("not yet")
		}
		return err
	})
}

func TestTwoPrimariesOnOneTimelineAreToldApartByTheirWAL(t *testing.T) {
	t.Parallel()
	a, b := newNode(t, "a"), newNode(t, "b") // copies of one cluster
	a.startPrimary()
	a.insert(10)
	b.wantVerdict(a, events.VerdictFollow) // an old copy of a

	b.startPrimary()
	b.insert(5)
	b.stop()
	a.insert(1000)
	d := b.judge(a)
	if d.Verdict != events.VerdictRewind {
		t.Fatalf("verdict %+v, want rewind", d)
	}
	b.wantClass("rewind", b.Rewind(b.ctx(), a.upstream()), ErrRefused)
}

func TestHistoryFileOfAPromotionThatCameToNothingIsSetAside(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a").startPrimary()
	b := replicaOf(t, "b", a)
	b.stop()
	stray := filepath.Join(b.config().DataDir, "pg_wal", "00000002.history")
	b.must("write a history file", os.WriteFile(stray, []byte("1\t0/1000000\tno recovery target specified\n"), 0o600))
	b.wantVerdict(a, events.VerdictRewind)
	b.must("rewind", b.Rewind(b.ctx(), a.upstream()))
	if exists(stray) {
		t.Error("the history file is still in recovery's sight")
	}
	b.wantVerdict(a, events.VerdictFollow)
	b.rejoin(a)
}

func TestDivergedWithoutRewindNeedsAClone(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a").startPrimary()
	b := replicaOf(t, "b", a)
	diverge(t, a, b)
	a.kill()
	b.promote()
	b.checkpointed()
	cfg := a.config()
	cfg.UsePgRewind = false
	a.must("reconfigure", a.Reconfigure(cfg))
	a.wantVerdict(b, events.VerdictClone)
	a.wantClass("rewind", a.Rewind(a.ctx(), b.upstream()), ErrRefused)
	a.wantClass("clone without being told to", a.Clone(a.ctx(), b.upstream(), CloneOptions{}), ErrRefused)
	a.must("clone", a.Clone(a.ctx(), b.upstream(), CloneOptions{Replace: true}))
	a.rejoin(b)
}

func TestShutdownLSNIsWhatAStandbyFlushes(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a").startPrimary()
	b := replicaOf(t, "b", a)
	for i, filler := range []int{0, 37, 211, 1801, 4003} {
		a.sql("SELECT pg_logical_emit_message(false, 'x', repeat('y', " + strconv.Itoa(filler) + "))")
		if i == 3 {
			a.sql("SELECT pg_switch_wal()") // the checkpoint comes right behind a long page header
		}
		_, _, err := a.ShutdownLSN(a.ctx())
		a.wantClass("end of a running server", err, ErrRefused)
		a.must("stop", a.Stop(a.ctx(), StopOptions{Mode: keeper.StopFast}))
		end, checkpoint, err := a.ShutdownLSN(a.ctx())
		a.must("find the end", err)
		var got events.LSN
		deadline := time.Now().Add(patience)
		for got < end && time.Now().Before(deadline) {
			got = FlushedLSN(b.observe())
		}
		if got != end || checkpoint >= end {
			t.Fatalf("round %d: WAL ends at %s (checkpoint at %s), the standby flushed %s", i, end, checkpoint, got)
		}
		a.startPrimary()
		b.awaitStreaming(a)
	}
}
