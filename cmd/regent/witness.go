package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/pgregent/regent/dcs/embedded"
	"github.com/pgregent/regent/internal/config"
	"github.com/pgregent/regent/internal/ctl"
	"github.com/pgregent/regent/internal/logging"
	"github.com/pgregent/regent/internal/stores"
)

func witnessCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "witness CONFIG",
		Short: "Run a voter of the embedded store without PostgreSQL",
		Long: "Run a voter of the embedded store without PostgreSQL, in the foreground: the third one beside two members, so that\n" +
			"either of them can be lost. CONFIG needs scope, name and the section raft, with raft.data_dir. SIGTERM and SIGINT\n" +
			"end it; SIGHUP reloads the secret or certificates.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			signals := make(chan os.Signal, 8)
			signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
			defer signal.Stop(signals)
			oneProcessor()
			return runWitness(cmd.Context(), args[0], os.Environ(), os.Geteuid(), signals)
		},
	}
}

// runWitness votes until a signal ends it. It touches nothing but its raft folder.
func runWitness(ctx context.Context, path string, environ []string, uid int, signals <-chan os.Signal) error {
	c, err := loadWitness(path, environ)
	if err != nil {
		return err
	}
	if uid == 0 {
		return errors.New("the witness must not run as root, because its port should give nobody more than a vote: run it as a " +
			"user of its own that may write raft.data_dir, for example: su postgres -c 'regent witness " + path + "'")
	}
	log := logging.New(os.Stderr, c.Log.Level, c.Log.JSON)
	store, err := openRaft(ctx, c, log)
	if err != nil {
		return err
	}
	log.Info("witness started", "node", string(c.Name), "cluster", c.Scope, "version", version)
	attend(ctx, store, c, path, environ, log, signals)
	return store.Close()
}

// attend waits for a signal to end, and reloads at each SIGHUP.
func attend(ctx context.Context, store *embedded.Store, c *config.Config, path string, environ []string, log *slog.Logger, signals <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case sig := <-signals:
			if sig != syscall.SIGHUP {
				log.Info("the witness ends", "signal", sig.String())
				return
			}
		}
		next, err := loadWitness(path, environ)
		if err == nil && !(stores.SameRaft(c.Raft, next.Raft) && c.Name == next.Name && c.Scope == next.Scope && c.Namespace == next.Namespace) {
			err = errors.New("more than the secret or certificates changed, which takes a restart of the witness")
		}
		if err == nil {
			err = stores.Reload(store, next)
		}
		if err != nil {
			log.Error("the configuration can't be reloaded; the one in force stays", "err", err)
			continue
		}
		log.Info("the configuration was reloaded")
	}
}

// loadWitness reads a file that need not say anything about PostgreSQL.
func loadWitness(path string, environ []string) (*config.Config, error) {
	c, err := config.Load(path, environ)
	if err != nil {
		return nil, err
	}
	problems := slices.DeleteFunc(config.Validate(c, ctl.Support()), func(p config.Problem) bool {
		section, _, _ := strings.Cut(p.Path, ".")
		return !slices.Contains([]string{"scope", "namespace", "name", "raft", "log"}, section) && !strings.HasPrefix(p.Path, "regent.raft")
	})
	if err := config.Errors(problems); err != nil {
		return nil, err
	}
	switch {
	case c.Store != "raft":
		return nil, fmt.Errorf("%s has no section `raft:`: a witness votes in the embedded store only", path)
	case c.Raft.DataDir == "":
		return nil, fmt.Errorf("%s: raft.data_dir is not defined: name a folder for the witness's votes, which survives a restart", path)
	case c.Raft.SelfAddr.String() == "":
		return nil, fmt.Errorf("%s: raft.self_addr is not defined: a witness votes, so the others must reach it", path)
	}
	return c, nil
}
