package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"syscall"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
)

// twinCheck refuses to start beside a living agent of the same name. Two of a name
// would each take the other's lease for its own former one, and lead with it (S10).
type twinCheck struct {
	name  events.NodeName
	mine  string // where this agent's REST API is reached
	store dcs.Store
	peers *http.Client
	// fits judges the first view besides.
	fits func(events.ClusterView) error
	// upgrade takes a request that comes too early.
	upgrade chan<- struct{}
	done    bool // early has seen what holds now; written before late is called
}

// The patience of the check.
const (
	twinWait  = 3 * time.Second // for a store that answers
	twinRetry = 50 * time.Millisecond
	twinProbe = time.Second
)

// early checks before this agent's own REST API is there, so that any answer at the
// address in the member key is another's. A store that doesn't answer in time must not
// keep the API down; late does the rest then. ended: a signal asked the agent to end.
func (t *twinCheck) early(ctx context.Context, signals <-chan os.Signal) (ended bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, twinWait)
	defer cancel()
	found := make(chan error, 1)
	go func() { found <- t.look(ctx) }()
	for {
		select {
		case err := <-found:
			return false, err
		case sig := <-signals:
			switch sig {
			case syscall.SIGUSR2:
				ask(t.upgrade)
				continue
			case syscall.SIGHUP:
				continue // the file has just been read
			}
			cancel()
			<-found
			return true, nil
		}
	}
}

// look reads the store as soon as it answers, and checks.
func (t *twinCheck) look(ctx context.Context) error {
	for {
		v, err := t.store.View(ctx, dcs.Linearizable)
		if err == nil {
			t.done = true
			return t.judge(ctx, dcs.Decode(v))
		}
		retry := time.NewTimer(twinRetry)
		select {
		case <-retry.C:
		case <-ctx.Done():
			retry.Stop()
			return nil
		}
	}
}

// late checks the first view that the machine would act on. This agent's own API
// answers by then, so a twin that claims the same address can't be told from it.
func (t *twinCheck) late(ctx context.Context, v events.ClusterView) error {
	if t.done {
		return nil
	}
	if m, ok := v.Member(t.name); !ok || m.APIURL == t.mine {
		return t.fits(v)
	}
	return t.judge(ctx, v)
}

func (t *twinCheck) judge(ctx context.Context, v events.ClusterView) error {
	if err := t.probe(ctx, v); err != nil {
		return err
	}
	return t.fits(v)
}

// probe asks at the address in the member key. Nobody there: that was this agent's
// own former run.
func (t *twinCheck) probe(ctx context.Context, v events.ClusterView) error {
	m, ok := v.Member(t.name)
	if !ok || m.APIURL == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, twinProbe)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.APIURL, nil)
	if err != nil {
		return nil // no address at all
	}
	resp, err := t.peers.Do(req)
	if err != nil {
		return nil
	}
	_ = resp.Body.Close() // that there is an answer is all
	return fmt.Errorf("start the agent: Can't start; there is already a node named '%s' running (it answers at %s): "+
		"give this member another name, or stop the other agent", t.name, m.APIURL)
}
