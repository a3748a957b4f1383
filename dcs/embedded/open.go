package embedded

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/pgregent/regent/dcs"
)

// Open starts this node's part of the store: it locks the raft folder, listens, and
// takes part in the cluster in the background. It doesn't wait for the others: calls
// do, within their contexts. Its errors are ErrBroken: settings, folder or port.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("open the embedded store: %w: %w", dcs.ErrUnavailable, err)
	}
	secured, err := tlsOf(cfg.TLS, cfg.Secret, string(cfg.Name))
	if err != nil {
		return nil, err
	}
	cfg.TLS = secured
	quiet := newThrottle(cfg.Logger, cfg.now)
	folder, err := openFolder(cfg.DataDir, cfg.Name, raftLogger(quiet))
	if err != nil {
		return nil, err
	}
	inner, err := cfg.network.Listen(cfg.BindAddr)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("raft port: %w: %w", dcs.ErrBroken, err), folder.close())
	}
	s, err := assemble(cfg, quiet, folder, inner)
	if err != nil {
		return nil, errors.Join(err, inner.Close(), folder.close())
	}
	if cfg.TLS == nil {
		s.log.Warn("the raft port is plain text: anyone who reaches it can take over the cluster; set raft.password",
			"addr", cfg.BindAddr)
	}
	s.start(inner)
	return s, nil
}

// assemble builds the store around raft; nothing of ours runs yet.
func assemble(cfg Config, quiet *throttle, folder *folder, inner net.Listener) (*Store, error) {
	s := &Store{
		cfg: cfg, log: cfg.Logger, quiet: quiet, folder: folder, replica: newReplica(cfg.now),
		standing: newSignal(), health: newSignal(), leaderWaits: map[uint64]leaderWait{},
	}
	s.life, s.end = context.WithCancel(context.Background())
	s.enter(false)
	s.guard = newGuard(cfg.TLS)
	s.peers = newPeers(s.life, cfg.network, s.guard, cfg.Cluster)
	s.outside = newClient(ClientConfig{
		Addrs: cfg.partners(), Cluster: cfg.Cluster, guard: s.guard, network: cfg.network, now: cfg.now,
	})
	layer := &streamLayer{
		network: cfg.network, guard: s.guard, addr: raft.ServerAddress(cfg.SelfAddr), log: quiet, ctx: s.life,
		ready: make(chan net.Conn), conns: map[net.Conn]struct{}{},
	}
	s.listener = &listener{
		inner: inner, guard: s.guard, log: quiet, raft: layer, conns: map[net.Conn]struct{}{},
		check: s.checkGreeting, serve: s.serveRPC,
	}
	// Raft asks for the configuration only while it runs, so after it was made.
	var running atomic.Pointer[raft.Raft]
	s.transport = newTransport(layer, cfg, raftLogger(quiet), func() raft.Configuration {
		if r := running.Load(); r != nil {
			return configurationOf(r)
		}
		return raft.Configuration{}
	})
	s.transport.self = folder.id
	s.transport.leads = func(id raft.ServerID, term uint64) bool {
		r := running.Load()
		return r != nil && r.State() == raft.Leader && r.CurrentTerm() == term &&
			slices.ContainsFunc(configurationOf(r).Servers, func(s raft.Server) bool { return s.ID == id })
	}
	notices := make(chan bool, 8)
	if err := s.keepsPromises(s.life); err != nil {
		s.end()
		s.peers.close()
		return nil, errors.Join(err, s.transport.Close(), s.outside.Close())
	}
	// The newest entries are looked at again and again, for what comes before the next one.
	if err := s.replica.queued.fill(folder); err != nil {
		s.end()
		return nil, errors.Join(fmt.Errorf("start raft: %w: %w", dcs.ErrBroken, err), s.transport.Close(), s.outside.Close())
	}
	s.disk = &disk{store: cfg.diskOf(folder.logs), speed: newSpeed(cfg.Timings, cfg.now), queued: &s.replica.queued, dir: cfg.DataDir, log: quiet, ctx: s.life}
	s.transport.silent = s.disk.silent
	recent, err := raft.NewLogCache(recentEntries, s.disk)
	if err != nil {
		s.end()
		return nil, errors.Join(fmt.Errorf("start raft: %w: %w", dcs.ErrBroken, err), s.transport.Close(), s.outside.Close())
	}
	r, err := raft.NewRaft(raftConfig(cfg, folder.id, quiet, notices), s.replica, recent, s.disk, folder.snaps, s.transport)
	if err != nil {
		s.end()
		return nil, errors.Join(fmt.Errorf("start raft: %w: %w", dcs.ErrBroken, err), s.transport.Close(), s.outside.Close())
	}
	running.Store(r)
	s.replica.running.Store(true)
	s.raft = r
	s.offices = &offices{store: s, notices: notices, news: make(chan struct{}, 1)}
	return s, nil
}

// trailing entries stay in the log after a snapshot, for followers that are a little
// behind; the log's file, which never shrinks, has room for a few times as many.
const trailing = 1024

// recentEntries are kept in memory.
const recentEntries = 64

func raftConfig(cfg Config, id raft.ServerID, quiet *throttle, notices chan bool) *raft.Config {
	conf := raft.DefaultConfig()
	conf.LocalID = id
	conf.HeartbeatTimeout = cfg.Timings.Heartbeat
	conf.ElectionTimeout = cfg.Timings.Election
	conf.LeaderLeaseTimeout = cfg.Timings.LeaderLease
	conf.CommitTimeout = cfg.Timings.Commit
	// The content is small, so snapshots are cheap and a long log is not worth keeping.
	conf.TrailingLogs = trailing
	conf.SnapshotThreshold = 2 * trailing
	conf.SnapshotInterval = cfg.snapshotEvery
	conf.ShutdownOnRemove = false
	conf.NotifyCh = notices
	conf.NoLegacyTelemetry = true
	conf.Logger = raftLogger(quiet)
	return conf
}

// start runs the store's goroutines; Close waits for them.
func (s *Store) start(inner net.Listener) {
	observed := make(chan raft.Observation, 64)
	observer := raft.NewObserver(observed, false, wanted)
	s.raft.RegisterObserver(observer)
	s.run.Go(func() { s.listener.run(s.life) })
	s.run.Go(func() { s.transport.run(s.life, s.cfg.now, s.raft, s.applied) })
	s.run.Go(func() { s.offices.follow(s.life) })
	s.run.Go(func() { s.offices.run(s.life) })
	s.run.Go(func() { (&herald{store: s, busy: map[raft.ServerID]bool{}}).run(s.life) })
	s.run.Go(func() { s.place(s.life) })
	s.run.Go(func() { s.membership(s.life) })
	s.run.Go(func() {
		defer s.raft.DeregisterObserver(observer)
		s.observe(s.life, observed)
	})
}

func wanted(o *raft.Observation) bool {
	switch o.Data.(type) {
	case raft.LeaderObservation, raft.ResumedHeartbeatObservation, raft.PeerObservation:
		return true
	default:
		return false
	}
}

// observe turns raft's observations into signals. Observations may be dropped;
// nothing depends on one that isn't looked at again by other means.
func (s *Store) observe(ctx context.Context, from <-chan raft.Observation) {
	var told raft.ServerID
	for {
		select {
		case <-ctx.Done():
			return
		case o := <-from:
			if leader, ok := o.Data.(raft.LeaderObservation); ok {
				s.leaderIs(leader.LeaderID)
				s.standing.notify()
				if leader.LeaderID != "" && leader.LeaderID != told && leader.LeaderID != s.folder.id {
					told = leader.LeaderID
					s.log.Info("the embedded store has a leader", "node", nameOf(leader.LeaderID), "addr", string(leader.LeaderAddr))
				}
				continue
			}
			s.health.notify()
		}
	}
}

func configurationOf(r *raft.Raft) raft.Configuration {
	future := r.GetConfiguration()
	if future.Error() != nil {
		return raft.Configuration{}
	}
	return future.Configuration()
}

func (s *Store) configuration() raft.Configuration { return configurationOf(s.raft) }
