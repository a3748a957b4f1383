package etcd3

import (
	"context"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// The times of looking at etcd's member list.
const (
	membersEvery = 5 * time.Minute
	membersMax   = 3 * time.Second
	// membersPause is the least time between two looks.
	membersPause = 5 * time.Second
)

// noticeTrouble asks for a fresh look at the member list.
func (s *Store) noticeTrouble() {
	select {
	case s.trouble <- struct{}{}:
	default:
	}
}

// keepMembers adds the servers that etcd names to the configured ones, which are only a
// beginning: at the start, now and then, and when nobody answered.
func (s *Store) keepMembers() {
	for s.life.Err() == nil {
		next := membersEvery
		if !s.refreshMembers() {
			next = membersPause
		}
		if !wait(s.life, min(next, membersPause)) {
			return
		}
		timer := time.NewTimer(next - min(next, membersPause))
		select {
		case <-s.life.Done():
		case <-s.trouble:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// refreshMembers reports whether the list could be had.
func (s *Store) refreshMembers() bool {
	ctx, cancel := context.WithTimeout(s.life, membersMax)
	defer cancel()
	r, _, err := round(ctx, s, func(ctx context.Context, e *endpoint) (*pb.MemberListResponse, error) {
		return ask(ctx, s, e, func(ctx context.Context) (*pb.MemberListResponse, error) {
			return pb.NewClusterClient(e.conn).MemberList(ctx, &pb.MemberListRequest{})
		})
	})
	if err != nil {
		return false
	}
	urls := slices.Clone(s.cfg.Endpoints)
	for _, m := range r.Members {
		if m.IsLearner {
			continue // it answers no linearizable read
		}
		for _, raw := range m.ClientURLs {
			if u, err := normalEndpoint(raw); err == nil {
				urls = append(urls, u)
			}
		}
	}
	if err := s.pool.set(urls); err != nil {
		s.log.Warn("a server of etcd's member list can't be used", "err", err)
	}
	return true
}
