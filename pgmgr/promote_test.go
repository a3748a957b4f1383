package pgmgr

import (
	"context"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/internal/mono"
	"github.com/pgregent/regent/pgmgr/keeper"
)

// promoteAfterKill kills the primary and promotes the replica at once, and returns
// how long the promotion took.
func promoteAfterKill(t *testing.T, a, b *node) time.Duration {
	t.Helper()
	a.insert(100)
	b.awaitReplayed(a)
	a.kill()
	began := time.Now()
	tl, err := b.Promote(b.ctx(), *longGrant(), nil)
	took := time.Since(began)
	b.must("promote", err)
	t.Logf("promotion right after the upstream's SIGKILL took %s", took.Round(time.Millisecond))
	if tl != 2 {
		t.Errorf("timeline %d after the promotion, want 2", tl)
	}
	b.sql("INSERT INTO t VALUES (1)")
	return took
}

func TestPromotionRightAfterTheUpstreamsDeathIsFast(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a").startPrimary()
	b := replicaOf(t, "b", a)
	if took := promoteAfterKill(t, a, b); took > 500*time.Millisecond {
		t.Errorf("promotion took %s", took)
	}
	st := b.observe()
	if st.InRecovery || st.Timeline != 2 || !st.Ready {
		t.Errorf("observed after the promotion: %+v", st)
	}
	ks, err := b.k.Status(b.ctx())
	b.must("ask the keeper", err)
	if ks.Armed == nil {
		t.Error("the promoted server isn't armed")
	}
}

// The trap: the promotion is seen between the request for a new walreceiver and its
// start. Giving that one up wakes nobody, and the startup process sleeps the retry
// interval out. A stopped postmaster, which starts the walreceiver late, makes it
// likely.
func TestPromotionAvoidsTheTrapOfALongRetryInterval(t *testing.T) {
	t.Parallel()
	for range 2 {
		a := newNode(t, "a").startPrimary()
		b := emptyNode(t, "b")
		b.param("wal_retrieve_retry_interval", "5s")
		b.must("clone", b.Clone(b.ctx(), a.upstream(), CloneOptions{}))
		b.startReplica(a).awaitStreaming(a)
		if got := b.sql("SHOW wal_retrieve_retry_interval"); got != "5s" {
			t.Fatalf("the user's interval isn't in force: %s", got)
		}
		conn, err := b.session()
		b.must("connect", err)
		if pid, err := startupProcess(b.ctx(), conn); err != nil || pid == 0 {
			t.Fatalf("the replica's startup process is %d (%v)", pid, err)
		}
		b.signal(syscall.SIGSTOP)
		a.kill()
		b.must("promote", b.k.Promote(b.ctx(), *longGrant()))
		began := time.Now()
		b.signal(syscall.SIGCONT)
		_, err = awaitPromotion(b.ctx(), conn)
		hangUp(conn)
		b.must("await the promotion", err)
		took := time.Since(began)
		t.Logf("promotion through the trap took %s", took.Round(time.Millisecond))
		if took > time.Second {
			t.Errorf("promotion took %s", took)
		}
	}
}

func TestFollowWaitsUntilTheWalreceiverIsGone(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a").startPrimary()
	b := replicaOf(t, "b", a)
	// Only the startup process ends a walreceiver.
	startup := atoi(b.sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup'"))
	b.must("stop it", syscall.Kill(startup, syscall.SIGSTOP))
	ctx, giveUp := context.WithCancel(b.ctx())
	defer giveUp()
	followed := make(chan error, 1)
	go func() { followed <- b.Follow(ctx, nil) }()
	for b.sql("SHOW primary_conninfo") != "" { // new sessions see what was reloaded
		select {
		case err := <-followed:
			t.Fatalf("follow nobody returned before anything was reloaded: %v", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	giveUp()
	err := <-followed
	b.must("continue it", syscall.Kill(startup, syscall.SIGCONT))
	b.wantClass("follow nobody while the walreceiver lives", err, ErrUnknown)
	b.must("follow nobody", b.Follow(b.ctx(), nil))
	if st := b.observe(); st.Upstream != "" {
		t.Errorf("it still streams from %s", st.Upstream)
	}
}

func TestPromotionAfterDetachingIsFast(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a").startPrimary()
	b := replicaOf(t, "b", a)
	a.signal(syscall.SIGSTOP) // a frozen upstream, whose connections live
	defer a.signal(syscall.SIGCONT)
	b.must("detach", b.Follow(b.ctx(), nil))
	if st := b.observe(); st.Upstream != "" || st.Streaming || st.ConfiguredUpstream != "" {
		t.Errorf("after detaching: %+v", st)
	}
	began := time.Now()
	b.promote()
	if took := time.Since(began); took > 500*time.Millisecond {
		t.Errorf("promotion took %s", took)
	}
}

func TestPromotionNeedsAValidGrant(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a").startPrimary()
	b := replicaOf(t, "b", a)
	past := keeper.Grant{Revision: 2, Deadline: mono.Now().Add(-time.Second), Budget: time.Second}
	_, err := b.Promote(b.ctx(), past, nil)
	b.wantClass("promote with a past grant", err, ErrRefused)
	if got := b.sql("SELECT pg_is_in_recovery()"); got != "t" {
		t.Error("the replica was promoted without a grant")
	}
	b.stop()
	_, err = b.Promote(b.ctx(), *longGrant(), nil)
	b.wantClass("promote a server that is down", err, ErrRefused)
}

func TestPromotingAPrimaryOnlyExtendsItsGrant(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a").startPrimary()
	later := keeper.Grant{Revision: 7, Deadline: mono.Now().Add(2 * time.Hour), Budget: time.Second}
	tl, err := a.Promote(a.ctx(), later, nil)
	a.must("promote a primary", err)
	if tl != 1 {
		t.Errorf("timeline %d, want 1", tl)
	}
	ks, err := a.k.Status(a.ctx())
	a.must("ask the keeper", err)
	if ks.Armed == nil || ks.Armed.Revision != 7 {
		t.Errorf("armed with %+v, want revision 7", ks.Armed)
	}
}

func TestInterruptedPromotionIsUnknownAndCanBeRepeated(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a").startPrimary()
	b := replicaOf(t, "b", a)
	// Recovery can't end while its process is stopped.
	startup, err := strconv.Atoi(b.sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup'"))
	b.must("find the startup process", err)
	b.must("stop it", syscall.Kill(startup, syscall.SIGSTOP))
	ctx, cancel := context.WithTimeout(b.ctx(), 200*time.Millisecond)
	defer cancel()
	_, err = b.Promote(ctx, *longGrant(), nil)
	b.must("continue it", syscall.Kill(startup, syscall.SIGCONT))
	b.wantClass("promote while recovery hangs", err, ErrUnknown)
	if tl := b.promote(); tl != 2 {
		t.Errorf("timeline %d, want 2", tl)
	}
}

func TestFollowMovesAReplicaWithoutRestart(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a").startPrimary()
	b, c := replicaOf(t, "b", a), replicaOf(t, "c", a)
	pid := c.pid()
	up := b.upstream()
	c.must("follow b", c.Follow(c.ctx(), &up))
	if st := c.observe(); st.ConfiguredUpstream != "127.0.0.1:"+strconv.Itoa(b.config().Port) {
		t.Errorf("configured upstream is %s after Follow returned", st.ConfiguredUpstream)
	}
	c.awaitStreaming(b)
	a.insert(5)
	c.awaitReplayed(a)
	c.must("follow b again", c.Follow(c.ctx(), &up))

	a.kill()
	if tl := b.promote(); tl != 2 {
		t.Fatalf("timeline %d, want 2", tl)
	}
	b.insert(5)
	c.awaitStreaming(b)
	c.eventually("is on timeline 2", func() error {
		if st := c.observe(); st.Timeline != 2 {
			return errNoRow
		}
		return nil
	})
	if c.pid() != pid {
		t.Error("the replica was restarted")
	}
	b.wantClass("follow on a primary", b.Follow(b.ctx(), &up), ErrRefused)
}

func TestFollowOnAStoppedServerWritesTheFiles(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a").startPrimary()
	b := replicaOf(t, "b", a)
	b.stop()
	up := events.Upstream{Name: "z", Host: "10.9.8.7", Port: 1234}
	b.must("follow", b.Follow(b.ctx(), &up))
	if conf := b.readConf(); !strings.Contains(conf, "host=10.9.8.7 port=1234") {
		t.Errorf("primary_conninfo isn't written:\n%s", conf)
	}
}
