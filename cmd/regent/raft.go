package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"syscall"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/dcs/embedded"
	"github.com/pgregent/regent/internal/config"
	"github.com/pgregent/regent/internal/stores"
)

// openRaft opens this node's part of the embedded store, as its agent or as a witness.
func openRaft(ctx context.Context, c *config.Config, log *slog.Logger) (*embedded.Store, error) {
	store, err := stores.Embedded(ctx, c, log)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("open the embedded store: another program listens on %s (is another agent running?); stop it, "+
			"or change raft.self_addr and raft.bind_addr: %w", c.Raft.BindAddr, err)
	}
	if err != nil {
		return nil, advised(fmt.Errorf("open the embedded store: %w", err), "give raft.data_dir to the agent's user, or name another folder")
	}
	return store, nil
}

// openStore opens the agent's store, whichever the file names.
func openStore(ctx context.Context, c *config.Config, log *slog.Logger) (dcs.Store, error) {
	if c.Store == "raft" {
		store, err := openRaft(ctx, c, log)
		if err != nil {
			return nil, err
		}
		return store, nil
	}
	store, err := stores.Open(ctx, c, log)
	return store, advised(err, "let the agent's user read the files that the section "+c.Store+" names")
}
