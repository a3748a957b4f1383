package ctl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/internal/config"
	"github.com/pgregent/regent/internal/stores"
)

// target is what the options say about where the cluster is.
type target struct {
	file     string
	dcs      string
	insecure bool
}

// The environment's variables for the options.
const (
	fileVariable = "PATRONICTL_CONFIG_FILE"
	dcsVariable  = "DCS_URL"
)

// Target adds the options -c, -d and -k to a command. The root has them as well, so they
// may stand before or after the command's name.
func (a *App) Target(cmd *cobra.Command) {
	a.fileOption(cmd)
	f := cmd.Flags()
	f.StringVarP(&a.target.dcs, "dcs-url", "d", a.target.dcs, "`URL` of the store to use instead of the file's, e.g. raft://host:port,host:port (variable "+dcsVariable+")")
	f.StringVar(&a.target.dcs, "dcs", a.target.dcs, "the same as --dcs-url")
	f.BoolVarP(&a.target.insecure, "insecure", "k", a.target.insecure, "don't verify the certificates of the REST API")
	// The error can only be that the flag, defined above, doesn't exist.
	_ = f.MarkHidden("dcs")
}

// fileOption adds -c alone, for commands that ask no cluster.
func (a *App) fileOption(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&a.target.file, "config-file", "c", a.target.file,
		"configuration `FILE`, usually the agent's own (variable "+fileVariable+")")
}

// load reads the configuration: the file that was named, else the default one if it is
// there, and the environment's PATRONI_* variables in any case.
func (a *App) load() (*config.Config, error) {
	file := a.target.file
	if file == "" {
		file = a.variable(fileVariable)
	}
	if file != "" {
		if f, err := os.Open(file); err != nil {
			return nil, fail("Provided config file %s not existing or no read rights. Check the -c/--config-file parameter", file)
		} else if err := f.Close(); err != nil {
			return nil, fmt.Errorf("read configuration: %w", err)
		}
	} else if def := a.defaultFile(); def != "" {
		if _, err := os.Stat(def); err == nil {
			file = def
		}
	}
	c, err := config.Load(file, a.env.Environ)
	switch {
	case errors.Is(err, config.ErrEmpty):
		return &config.Config{Namespace: "/service"}, nil
	case err != nil:
		return nil, err
	}
	if a.target.insecure {
		c.Ctl.Insecure = true
	}
	return c, nil
}

func (a *App) defaultFile() string {
	if a.env.Home == "" {
		return ""
	}
	return filepath.Join(a.env.Home, ".config", "patroni", "patronictl.yaml")
}

// storeAddress finds the store: -d, else the file's section.
func (a *App) storeAddress(c *config.Config, scope string) (StoreAddress, error) {
	raw := a.target.dcs
	if raw == "" {
		raw = a.variable(dcsVariable)
	}
	if moved, err := stores.ReadMoved(c.Regent.RunDir); err == nil && raw == "" {
		// On a member's host: its file may name a store that the cluster has left.
		if c, err = moved.InForce(c); err != nil {
			return StoreAddress{}, err
		}
	}
	return a.addressOf(c, scope, raw)
}

// addressIn is the address of the store that a configuration names.
func (a *App) addressIn(c *config.Config, scope string) (StoreAddress, error) {
	return a.addressOf(c, scope, "")
}

func (a *App) addressOf(c *config.Config, scope, raw string) (StoreAddress, error) {
	at := StoreAddress{Secret: c.Raft.Password, Accept: c.Raft.AcceptPassword, Files: stores.RaftSecurity(c.Raft).Files}
	if scope != "" {
		at.Cluster = dcs.BasePath(c.Namespace, scope)
	}
	switch {
	case raw != "":
		return at.parse(raw, c, scope)
	case c.Store == "":
		return at, fail("Can not find suitable configuration of distributed configuration store\n"+
			"Available implementations: %s\n"+
			"Give a file with such a section, for example `raft:`, by -c FILE, by the variable %s or as %s; or give the store itself "+
			"by -d raft://HOST:PORT, etcd3://HOST:PORT or consul://HOST:PORT", builtIn(), fileVariable, a.defaultFileOrName())
	case !slices.Contains(stores.Names(), c.Store):
		return at, notBuiltIn(c.Store, "of "+c.Source)
	case c.Store != "raft":
		return at.outside(c)
	}
	for _, addr := range append([]config.Address{c.Raft.SelfAddr}, c.Raft.PartnerAddrs...) {
		if s := addr.String(); s != "" {
			at.Addrs = append(at.Addrs, s)
		}
	}
	if len(at.Addrs) == 0 {
		return at, fail("The section `raft:` of %s names neither self_addr nor partner_addrs", c.Source)
	}
	return at, nil
}

func (a *App) defaultFileOrName() string {
	if f := a.defaultFile(); f != "" {
		return f
	}
	return "~/.config/patroni/patronictl.yaml"
}

// The bounds of waiting for the store.
const (
	openTimeout = 10 * time.Second
	viewTimeout = 5 * time.Second
)

// session is an open cluster.
type session struct {
	app    *App
	cfg    *config.Config
	name   string // of the cluster
	store  dcs.Store
	legacy bool // the words of 3.0.4 are asked for
	stays  bool // also when the cluster was moved to another store
}

// open loads the configuration and connects to the store of the named cluster; the
// scope's when the name is empty. The caller closes the session.
func (a *App) open(ctx context.Context, cluster string) (*session, error) {
	c, err := a.load()
	if err != nil {
		return nil, err
	}
	if cluster == "" {
		cluster = c.Scope
	}
	at, err := a.storeAddress(c, cluster)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	store, err := a.env.Open(ctx, at)
	if err != nil {
		return nil, fmt.Errorf("open the store %s: %w", strings.Join(at.Addrs, ","), err)
	}
	return &session{app: a, cfg: c, name: cluster, store: store, legacy: c.Regent.Compat == "3.0.4"}, nil
}

func (s *session) close() {
	if err := s.store.Close(); err != nil {
		s.app.env.Log.Warn("the store's connection did not close", "err", err)
	}
}

// view reads the cluster as it is now.
func (s *session) view(ctx context.Context) (cluster, error) {
	ctx, cancel := context.WithTimeout(ctx, viewTimeout)
	defer cancel()
	v, err := s.store.View(ctx, dcs.Linearizable)
	if err != nil {
		return cluster{}, fmt.Errorf("read cluster %s: %w", s.name, err)
	}
	c := readCluster(s.name, v)
	if c.Move.Is(events.MoveTarget) && !s.stays && !s.follow(ctx, &c) {
		return cluster{}, fail("Cluster %s has been moved to another store, %s: give the file of a member that works there, or its address by -d", s.name, c.Move.To)
	}
	return c, nil
}

// look reads the cluster for somebody who only looks at it: when the store has lost its
// quorum, an old view with a warning is better than none.
func (s *session) look(ctx context.Context) (cluster, error) {
	c, err := s.view(ctx)
	if err == nil || ctx.Err() != nil || !errors.Is(err, dcs.ErrUnavailable) {
		return c, err
	}
	ctx, cancel := context.WithTimeout(ctx, viewTimeout)
	defer cancel()
	v, localErr := s.store.View(ctx, dcs.Local)
	if localErr != nil {
		return cluster{}, err
	}
	age := "of unknown age"
	if v.Age >= 0 {
		age = v.Age.Round(100*time.Millisecond).String() + " old"
	}
	s.app.env.Log.Warn("The store has no quorum. What follows is one node's copy, " + age)
	return readCluster(s.name, v), nil
}

// wasAborted turns the end of an interrupted command into the operator's word for it.
func wasAborted(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil && errors.Is(ctx.Err(), context.Canceled) {
		return errAborted
	}
	return err
}

// run wraps the work of a command: it can be interrupted.
func (a *App) run(work func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		ctx, stop := a.env.Interrupts(cmd.Context())
		defer stop()
		return wasAborted(ctx, work(ctx, args))
	}
}

// on wraps the work of a command on one cluster, named by the first argument or by the
// configuration's scope.
func (a *App) on(work func(ctx context.Context, s *session) error) func(*cobra.Command, []string) error {
	return a.run(func(ctx context.Context, args []string) error {
		name := ""
		if len(args) > 0 {
			name = args[0]
		}
		s, err := a.open(ctx, name)
		if err != nil {
			return err
		}
		defer s.close()
		return work(ctx, s)
	})
}

// atMostOne refuses a second argument in click's words.
func atMostOne(cmd *cobra.Command, args []string) error {
	if len(args) > 1 {
		return usage(cmd, "Got unexpected extra argument%s (%s)", plural(len(args)-1), strings.Join(args[1:], " "))
	}
	return nil
}

// none refuses every argument.
func none(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage(cmd, "Got unexpected extra argument%s (%s)", plural(len(args)), strings.Join(args, " "))
	}
	return nil
}

func plural(n int) string {
	if n == 1 {
		return ""
	}
	return "s"
}

// memberNames lists names, sorted as members are.
func memberNames(ms []member, keep func(member) bool) []events.NodeName {
	var out []events.NodeName
	for _, m := range ms {
		if keep(m) {
			out = append(out, m.Name)
		}
	}
	return out
}
