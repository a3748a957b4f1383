package etcd3

import (
	"context"
	"errors"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
)

// The times of the watch.
const (
	// quietMax is how long the stream may say nothing before the server is asked for a
	// sign of life, and again how long that may take.
	quietMax = 2 * time.Second
	// readMax bounds each try to read what a watch begins with.
	readMax = 3 * time.Second
	// resumeMin and resumeMax are the pauses before a watch is begun anew.
	resumeMin, resumeMax = 20 * time.Millisecond, time.Second
)

func (s *Store) startFollowing() {
	s.following.Do(func() { s.calls.Start(s.follow) })
}

// follow keeps the mirror up to date until the store is closed: it reads everything, then
// lets a server tell what changes, until that ends in whatever way; then it begins anew.
// So a gap of any kind (compaction, another leader, a server's death) is bridged by a fresh
// whole state.
func (s *Store) follow() {
	pause, judged := resumeMin, false
	for s.life.Err() == nil {
		ctx, cancel := context.WithTimeout(s.life, readMax)
		now, err := s.read(ctx)
		cancel()
		if err == nil && !judged {
			judged = true
			s.calls.Start(func() { s.judgeVersion(s.life) })
		}
		if err == nil {
			began := s.cfg.now()
			err = s.stream(now.revision)
			if s.cfg.now().Sub(began) > quietMax {
				pause = resumeMin // it was a good one
			}
		}
		if s.life.Err() != nil {
			return
		}
		s.log.Info("the watch of etcd begins anew", "why", err)
		wait(s.life, pause)
		pause = min(2*pause, resumeMax)
	}
}

var errSilent = errors.New("the server gave no sign of life")

// stream applies one server's changes after a revision until it ends, and says why it did.
func (s *Store) stream(after events.Revision) error {
	order := s.pool.order()
	if len(order) == 0 {
		return errClosed
	}
	e := order[0]
	ctx, cancel := context.WithCancel(s.life)
	defer cancel()
	prepared, err := e.prepared(ctx, s.login.Load())
	if err != nil {
		return err
	}
	stream, err := pb.NewWatchClient(e.conn).Watch(prepared)
	if err != nil {
		return fmt.Errorf("etcd server %s: %w", e.url, err)
	}
	create := &pb.WatchCreateRequest{
		Key: []byte(s.cfg.Prefix), RangeEnd: rangeEnd(s.cfg.Prefix), StartRevision: int64(after) + 1,
	}
	if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
		return fmt.Errorf("etcd server %s: %w", e.url, err)
	}
	heard := make(chan struct{}, 1)
	ended := make(chan error, 1)
	if !s.calls.Start(func() { ended <- s.receive(e, stream, heard) }) {
		return errClosed
	}
	err = supervise(stream, heard, ended)
	if errors.Is(err, errSilent) {
		s.pool.failed(e, s.cfg.now())
	}
	return fmt.Errorf("etcd server %s: %w", e.url, err)
}

// supervise waits for the end of a stream, and ends the wait for a silent one.
func supervise(stream pb.Watch_WatchClient, heard <-chan struct{}, ended <-chan error) error {
	quiet := time.NewTimer(quietMax)
	defer quiet.Stop()
	asked := false
	for {
		select {
		case err := <-ended:
			return err
		case <-heard:
			asked = false
		case <-quiet.C:
			if asked {
				return errSilent
			}
			asked = true
			progress := &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}
			if err := stream.Send(&pb.WatchRequest{RequestUnion: progress}); err != nil {
				return errSilent // the reason, if any, is in ended, and no better
			}
		}
		quiet.Reset(quietMax)
	}
}

// receive applies what comes. The revision in the header of an answer isn't used: only
// events say how far a watch has come. A progress note may come before the events that it
// counts, in servers before 3.4.25 and 3.5.8.
func (s *Store) receive(e *endpoint, stream pb.Watch_WatchClient, heard chan<- struct{}) error {
	for {
		r, err := stream.Recv()
		if err != nil {
			return err
		}
		if err := s.guard.admit(e, r.Header); err != nil {
			return err
		}
		select {
		case heard <- struct{}{}:
		default:
		}
		switch {
		case r.Canceled && r.CompactRevision != 0:
			return fmt.Errorf("what it missed is gone from etcd, up to revision %d", r.CompactRevision)
		case r.Canceled:
			e.forgetToken() // the reason may be that, in words that differ between versions
			return fmt.Errorf("%w: the watch was cancelled: %s", dcs.ErrUnavailable, r.CancelReason)
		}
		if len(r.Events) > 0 {
			changes := make([]change, 0, len(r.Events))
			for _, ev := range r.Events {
				changes = append(changes, change{s.entry(ev.Kv), ev.Type == mvccpb.Event_DELETE})
			}
			s.mirror.apply(changes)
		}
	}
}
