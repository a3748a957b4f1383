package dcstest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/dcs/mem"
	"github.com/pgregent/regent/internal/mono"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The reference model keeps the contract.
func TestConformance(t *testing.T) {
	t.Parallel()
	Run(t, func(t *testing.T) Env { return newModel(t) })
}

// newModel is an Env of the model. Three of its clients are at home on three imagined
// servers.
func newModel(t *testing.T) Env {
	cluster := mem.New(mono.Now)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- cluster.Run(ctx) }()
	f := &imagined{cluster: cluster, off: map[int]int{}, cut: map[int]bool{}}
	env := Env{
		Backend: "model",
		Bounds: Bounds{
			TTL: 200 * time.Millisecond, Late: time.Second, LateAfterFault: time.Second,
			Failover: time.Second, Overrun: time.Second, Storm: 2 * time.Second,
		},
		ChosenIDs:   true,
		NoElsewhere: "the model is one cluster",
		Faults:      f,
		Homes:       []int{0, 1, 2, AnyServer},
	}
	opened := 0
	var mu sync.Mutex // guards opened
	env.Open = func() (dcs.Store, error) {
		mu.Lock()
		defer mu.Unlock()
		opened++
		return cluster.Client(fmt.Sprint("extra-", opened)), nil
	}
	for i := range env.Homes {
		env.Stores = append(env.Stores, cluster.Client(clientName(i)))
	}
	t.Cleanup(func() {
		for _, s := range env.Stores {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
		cancel()
		<-done
	})
	return env
}

func clientName(i int) string { return fmt.Sprint("client-", i) }

// imagined are three servers that the model's clients could be talking to. A client
// whose server is off, or that has no majority behind it, is cut from the model; one
// whose server stands still has its calls held.
type imagined struct {
	cluster *mem.Cluster

	mu  sync.Mutex // guards the rest
	off map[int]int
	cut map[int]bool
}

const imaginedServers = 3

func (f *imagined) Servers() int { return imaginedServers }

func (f *imagined) Leader(context.Context) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range imaginedServers {
		if f.off[i] == 0 {
			return i, nil
		}
	}
	return 0, errors.New("no server is up")
}

func (f *imagined) Lacks(k Kind) string {
	if k == Compact {
		return "the model keeps no past"
	}
	return ""
}

func (f *imagined) Inflict(k Kind, target int) (heal func() error, err error) {
	switch k {
	case KillServer, IsolateServer:
		f.change(func() { f.off[target]++ })
		return func() error { f.change(func() { f.off[target]-- }); return nil }, nil
	case CutClient:
		f.change(func() { f.cut[target] = true })
		return func() error { f.change(func() { f.cut[target] = false }); return nil }, nil
	case PauseServer:
		wake := make(chan struct{})
		remove := f.cluster.Inject(mem.Fault{Client: clientName(target), Kind: mem.Hold, Until: wake, Times: -1})
		return func() error { remove(); close(wake); return nil }, nil
	case LoseReplies:
		remove := f.cluster.Inject(mem.Fault{Client: clientName(target), Kind: mem.LoseReply, Times: -1})
		return func() error { remove(); return nil }, nil
	default:
		return nil, fmt.Errorf("%s: %s", k, f.Lacks(k))
	}
}

// change applies a change and tells the model what follows for each client.
func (f *imagined) change(apply func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	apply()
	up := 0
	for i := range imaginedServers {
		if f.off[i] == 0 {
			up++
		}
	}
	for i := range imaginedServers + 1 {
		f.cluster.Cut(clientName(i), up <= imaginedServers/2 || f.off[i] > 0 || f.cut[i])
	}
}
