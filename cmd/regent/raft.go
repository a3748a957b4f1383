package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"syscall"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/dcs/embedded"
	"github.com/pgregent/regent/internal/config"
	"github.com/pgregent/regent/internal/ctl"
)

// openRaft opens this node's part of the embedded store, as its agent or as a witness.
func openRaft(ctx context.Context, c *config.Config, log *slog.Logger) (*embedded.Store, error) {
	r := c.Raft
	partners := make([]string, len(r.PartnerAddrs))
	for i, a := range r.PartnerAddrs {
		partners[i] = a.String()
	}
	secured, err := ctl.RaftSecurity(r).TLS(string(c.Name))
	if err != nil {
		return nil, fmt.Errorf("open the embedded store: %w", err)
	}
	store, err := embedded.Open(ctx, embedded.Config{
		Name: c.Name, Cluster: dcs.BasePath(c.Namespace, c.Scope),
		SelfAddr: r.SelfAddr.String(), BindAddr: r.BindAddr.String(), PartnerAddrs: partners,
		DataDir: r.DataDir, TLS: secured, Logger: log,
		Timings: embedded.Timings{Heartbeat: r.HeartbeatTimeout, Election: r.ElectionTimeout, LeaderLease: r.LeaderLeaseTimeout},
	})
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("open the embedded store: another program listens on %s (is another agent running?); stop it, "+
			"or change raft.self_addr and raft.bind_addr: %w", r.BindAddr, err)
	}
	if err != nil {
		return nil, advised(fmt.Errorf("open the embedded store: %w", err), "give raft.data_dir to the agent's user, or name another folder")
	}
	return store, nil
}

// secureRaft makes the raft port use the secret or certificates of a reloaded file.
func secureRaft(store dcs.Store, next *config.Config) error {
	s, ok := store.(*embedded.Store)
	if !ok {
		return nil
	}
	secured, err := ctl.RaftSecurity(next.Raft).TLS(string(next.Name))
	if err != nil {
		return err
	}
	return s.Secure(secured)
}

// sameRaft compares what can't change while the node runs: all but the protection of its port.
func sameRaft(now, next config.Raft) bool {
	now.Password, now.AcceptPassword = next.Password, next.AcceptPassword
	now.CertFile, now.KeyFile, now.CAFile = next.CertFile, next.KeyFile, next.CAFile
	return reflect.DeepEqual(now, next)
}
