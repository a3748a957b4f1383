package embedded

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync"
	"time"

	"github.com/pgregent/regent/dcs"
)

// session is the accepting end of one RPC connection.
type session struct {
	store *Store
	conn  net.Conn
	wg    sync.WaitGroup

	writing sync.Mutex // serialises answers

	mu    sync.Mutex // guards calls
	calls map[uint64]context.CancelFunc
}

// checkGreeting says whether a greeting is meant for this node.
func (s *Store) checkGreeting(kind, target string) string {
	switch kind {
	case greetingRaft:
		if target != string(s.folder.id) {
			return reasonServer
		}
	case greetingRPC:
		cluster, err := url.QueryUnescape(target)
		if err != nil || (cluster != "" && s.cfg.Cluster != "" && cluster != s.cfg.Cluster) {
			return reasonCluster
		}
	default:
		return reasonUnknown
	}
	return ""
}

// serveRPC answers calls until the connection ends, and returns after every call has.
func (s *Store) serveRPC(ctx context.Context, conn net.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	se := &session{store: s, conn: conn, calls: map[uint64]context.CancelFunc{}}
	defer se.wg.Wait()
	defer cancel()
	for {
		var req request
		if err := readFrame(conn, &req); err != nil {
			return
		}
		if req.Verb == verbCancel {
			se.mu.Lock()
			if end := se.calls[req.ID]; end != nil {
				end()
			}
			se.mu.Unlock()
			continue
		}
		se.start(ctx, req)
	}
}

// callMax bounds calls that came without a limit of their own.
const callMax = time.Minute

func (se *session) start(ctx context.Context, req request) {
	callCtx, end := context.WithCancel(ctx)
	if req.Verb != verbWatch {
		wait := callMax
		if req.Wait > 0 && req.Wait < callMax {
			wait = req.Wait
		}
		callCtx, end = context.WithTimeout(ctx, wait)
	}
	se.mu.Lock()
	se.calls[req.ID] = end
	se.mu.Unlock()
	se.wg.Go(func() {
		defer func() {
			end()
			se.mu.Lock()
			delete(se.calls, req.ID)
			se.mu.Unlock()
		}()
		if req.Verb == verbWatch {
			se.watch(callCtx, req.ID)
			return
		}
		r, err := se.store.answer(callCtx, req)
		if err != nil {
			r = response{Class: wireClass(err), Error: err.Error()}
		}
		r.ID = req.ID
		se.send(r)
	})
}

func (se *session) send(r response) bool {
	se.writing.Lock()
	defer se.writing.Unlock()
	_ = se.conn.SetWriteDeadline(time.Now().Add(sendPatience))
	if err := writeFrame(se.conn, r); err != nil {
		_ = se.conn.Close()
		return false
	}
	return true
}

func (s *Store) answer(ctx context.Context, req request) (response, error) {
	switch req.Verb {
	case verbPropose:
		if req.Command == nil {
			return response{}, fmt.Errorf("propose: %w: no command", dcs.ErrBroken)
		}
		result, fate, err := s.serveProposal(ctx, *req.Command, req.Relay)
		switch {
		case err == nil:
			return response{Result: &result}, nil
		case fate == perhaps:
			return response{}, fmt.Errorf("%w: %v", dcs.ErrUnknown, err)
		case errors.Is(err, dcs.ErrBroken):
			return response{}, err
		}
		return response{}, fmt.Errorf("%w: %w", dcs.ErrUnavailable, err)
	case verbHello:
		h := s.hello()
		if req.Promise != nil {
			p := s.transport.promises.of(req.Promise.ID)
			h.Promised = &p
		}
		return response{Hello: &h}, nil
	case verbStatus:
		status := s.status()
		return response{Status: &status}, nil
	case verbChange:
		if req.Change == nil {
			return response{}, fmt.Errorf("change of voters: %w: none", dcs.ErrBroken)
		}
		server, err := s.serveChange(ctx, *req.Change, req.Relay)
		return response{Server: &server}, err
	case verbView:
		if !s.participating() {
			return response{}, errOutside()
		}
		v := s.localView()
		return response{View: &wireView{Revision: v.Revision, KVs: v.KVs, Age: v.Age}}, nil
	default:
		return response{}, fmt.Errorf("call %q: %w: unknown to this version", req.Verb, dcs.ErrBroken)
	}
}

// watchRepeat is how often a watch without changes says that it is alive; a client
// that hears nothing for watchSilence looks for another node.
const (
	watchRepeat  = time.Second
	watchSilence = 3 * time.Second
)

// watch streams local views. A reader that is slow holds up only its own views: the
// feed keeps the newest, and a connection that stands still is closed.
func (se *session) watch(ctx context.Context, id uint64) {
	if !se.store.participating() {
		err := errOutside()
		se.send(response{ID: id, Class: wireClass(err), Error: err.Error()})
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(se.store.side.Load().over, cancel)() // the client finds another node
	views := make(chan dcs.View)
	se.wg.Go(func() {
		defer close(views)
		se.store.feedLocal(ctx, 0, views)
	})
	ok := true
	for {
		repeat := time.NewTimer(watchRepeat)
		var v dcs.View
		more := true
		select {
		case v, more = <-views:
		case <-repeat.C:
			v = se.store.localView()
		}
		repeat.Stop()
		if !more {
			if ok && !se.store.participating() {
				se.send(response{ID: id, Class: wireUnavailable, Error: errOutside().Error()})
			}
			return
		}
		// After a failed write the feed is only drained: it ends with the connection.
		ok = ok && se.send(response{ID: id, View: &wireView{Revision: v.Revision, KVs: v.KVs, Age: v.Age}})
	}
}

func errOutside() error {
	return fmt.Errorf("%w: this node isn't part of the raft cluster (yet)", dcs.ErrUnavailable)
}
