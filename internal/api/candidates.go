package api

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/pgregent/regent/events"
)

// probeWithin is how long a candidate may take to answer.
const probeWithin = 2 * time.Second

// anyGood reports whether one of the members could take over: it answers, PostgreSQL
// included, isn't tagged nofailover, and its watchdog works. All are asked at once.
func (s *Server) anyGood(ctx context.Context, members []events.Member) bool {
	ctx, cancel := context.WithTimeout(ctx, probeWithin)
	defer cancel()
	good := make(chan struct{}, len(members))
	var asked sync.WaitGroup
	for _, m := range members {
		asked.Go(func() {
			if s.isGood(ctx, m) {
				good <- struct{}{}
				cancel() // one is enough
			}
		})
	}
	asked.Wait()
	return len(good) > 0
}

// isGood asks one member.
func (s *Server) isGood(ctx context.Context, m events.Member) bool {
	var body []byte
	if m.Name == s.opt.Name {
		c := s.look(ctx)
		body = s.describe(&c)
	} else {
		var err error
		if body, err = s.fetch(ctx, m.APIURL); err != nil {
			s.log.Info("a candidate does not answer", "member", string(m.Name), "err", err)
			return false
		}
	}
	var doc struct {
		XLog     json.RawMessage `json:"xlog"`
		WAL      json.RawMessage `json:"wal"` // newer than xlog
		Watchdog bool            `json:"watchdog_failed"`
		Tags     struct {
			NoFailover       any             `json:"nofailover"`
			FailoverPriority json.RawMessage `json:"failover_priority"`
		} `json:"tags"`
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		s.log.Info("a candidate's answer can't be read", "member", string(m.Name), "err", err)
		return false
	}
	barred := isOn(doc.Tags.NoFailover)
	if doc.Tags.NoFailover == nil {
		n, err := strconv.Atoi(plainText(doc.Tags.FailoverPriority))
		barred = err == nil && n <= 0
	}
	return (doc.XLog != nil || doc.WAL != nil) && !barred && !doc.Watchdog
}

func (s *Server) fetch(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := s.opt.Peers.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(io.LimitReader(resp.Body, maxBody))
}
