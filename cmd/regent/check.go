package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/pgregent/regent/internal/agent"
	"github.com/pgregent/regent/internal/config"
	"github.com/pgregent/regent/pgmgr"
	"github.com/pgregent/regent/pgmgr/keeper"
)

// checkStart says whether an agent would start. A port that this member's own agent or
// PostgreSQL uses is no obstacle: the one would let go of it, the other be taken in charge.
func checkStart(ctx context.Context, path string) error {
	d, err := prepare(path, nil)
	if err != nil {
		return err
	}
	o := d.hostOptions()
	if holder, err := agent.FindHolder(ctx, d.local.Postgres.DataDir); err == nil {
		o.IgnorePorts = true
		_ = holder.Close() // it was only to be found
	}
	o.IgnorePorts = o.IgnorePorts || d.serverRuns(ctx)
	return config.Errors(config.CheckHost(d.local, o))
}

// checkHost refuses to start where PostgreSQL could not be started, before anything is
// touched. Beside a PostgreSQL that runs there is nothing to refuse: it needs its agent.
func (d *daemon) checkHost(ctx context.Context) error {
	runs := d.serverRuns(ctx)
	o := d.hostOptions()
	o.IgnorePorts = runs
	problems := config.CheckHost(d.local, o)
	if err := config.Errors(problems); err != nil {
		if !runs {
			return err
		}
		d.log.Error("PostgreSQL runs and could not be started again as it is configured: mend this before it has to be", "err", err)
	}
	d.warn(problems)
	return nil
}

func (d *daemon) hostOptions() config.HostOptions {
	return config.HostOptions{Path: os.Getenv("PATH"), Unfinished: pgmgr.Unfinished(d.local.Regent.RunDir)}
}

// serverRuns reports whether a PostgreSQL of the data directory may be running. One that
// can't be ruled out counts as running.
func (d *daemon) serverRuns(ctx context.Context) bool {
	if _, err := os.Lstat(filepath.Join(d.local.Postgres.DataDir, "postmaster.pid")); err == nil {
		return true
	}
	look, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	st, err := keeper.Peek(look, d.local.Regent.RunDir)
	return err == nil && st.Alive
}

// advised adds what an operator can do to the errors of a start that come from the system.
func advised(err error, denied string) error {
	var dns *net.DNSError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &dns):
		return fmt.Errorf("%w: correct the name, or make it known to the resolver (/etc/hosts, DNS)", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: %s", err, denied)
	}
	return err
}
