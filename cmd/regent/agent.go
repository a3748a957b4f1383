package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/events/journal"
	"github.com/pgregent/regent/fsm"
	"github.com/pgregent/regent/internal/agent"
	"github.com/pgregent/regent/internal/api"
	"github.com/pgregent/regent/internal/config"
	"github.com/pgregent/regent/internal/ctl"
	"github.com/pgregent/regent/internal/logging"
	"github.com/pgregent/regent/internal/metrics"
	"github.com/pgregent/regent/internal/replay"
	"github.com/pgregent/regent/internal/stores"
	"github.com/pgregent/regent/internal/systemd"
	"github.com/pgregent/regent/pgmgr"
	"github.com/pgregent/regent/pgmgr/keeper"
)

func agentCommand() *cobra.Command {
	check := false
	cmd := &cobra.Command{
		Use:   "agent CONFIG",
		Short: "Run the agent of one PostgreSQL",
		Long: "Run the agent of one PostgreSQL, in the foreground. CONFIG is a patroni.yml, or a folder of *.yml files.\n" +
			"SIGTERM and SIGINT stop PostgreSQL, handing the leadership over first; SIGHUP reloads CONFIG; SIGUSR2 puts the\n" +
			"installed program in this one's place and leaves PostgreSQL alone (see `regent upgrade`).",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path := ""
			if len(args) == 1 {
				path = args[0]
			}
			if check {
				return checkStart(cmd.Context(), path)
			}
			oneProcessor()
			return runAgent(cmd.Context(), path)
		},
	}
	cmd.Flags().BoolVar(&check, "check", false, "only say whether the agent would start with CONFIG")
	return cmd
}

// daemon is the agent's process: what it is made of, in the order in which it is
// made; close undoes it in reverse.
type daemon struct {
	path    string
	environ []string
	program string // where it was started from, and upgrades come from
	log     *slog.Logger
	// upgrade holds a request that has not been looked at yet.
	upgrade   chan struct{}
	waiting   []net.Conn // who asked for the upgrade that ends the loop
	keeperBin string

	reloading sync.Mutex // held through a reload: signals and the REST API ask for one

	mu     sync.Mutex     // guards local, file and warned
	local  *config.Config // replaced by a reload, which alone may read it unguarded then
	file   *config.Config // as it is written; local has the store that decides in its place
	warned map[string]bool

	moved     stores.Moved // what is remembered of the last move between stores
	came      *moving      // what the run before a move left; nil: there was none
	targeting sync.Mutex   // guards target
	target    targetStore

	lock    *agent.Lock
	journal *journal.Journal
	resume  fsm.State
	source  *agent.SnapshotSource
	store   dcs.Store
	keeper  *agent.Keeper
	pg      *pgmgr.Manager
	server  *api.Server
}

// runAgent runs the agent until it ends. After an upgrade that failed at the last step it
// runs a new one in the same process.
func runAgent(ctx context.Context, path string) error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR2)
	defer signal.Stop(signals)
	var came *moving
	for {
		d, err := prepare(path, came)
		if err != nil {
			return err
		}
		var a *agent.Agent
		if err = d.assemble(ctx); err == nil {
			a, err = d.run(ctx, signals)
		}
		if errors.Is(err, agent.ErrMoved) {
			if came, err = d.move(a.Snapshot()); err == nil {
				if closed := d.close(true); closed != nil {
					d.log.Warn("not everything was closed before the agent goes on in the other store", "err", closed)
				}
				continue
			}
		}
		came = nil
		upgrading := errors.Is(err, errUpgrade)
		closed := d.close(upgrading)
		if errors.Is(err, agent.ErrExit) {
			err = fmt.Errorf("%w (what to do: docs/operations/errors.md)", err)
		}
		if !upgrading {
			return errors.Join(err, closed)
		}
		if closed != nil {
			d.log.Warn("not everything was closed before the upgrade", "err", closed)
		}
		d.replace()
	}
}

// prepare reads what the agent is to be; nothing has been touched when it fails.
func prepare(path string, came *moving) (*daemon, error) {
	d := &daemon{path: path, environ: os.Environ(), warned: map[string]bool{}, upgrade: make(chan struct{}, 1), came: came}
	if err := d.configure(); err != nil {
		return nil, err
	}
	var err error
	if d.program, err = program(); err != nil {
		return nil, err
	}
	if d.keeperBin, err = keeper.FindBinary(d.program); err != nil {
		return nil, err
	}
	return d, nil
}

// configure reads and judges the file; nothing has been touched when it fails.
func (d *daemon) configure() error {
	local, err := config.Load(d.path, d.environ)
	if err != nil {
		return err
	}
	problems := config.Validate(local, ctl.Support())
	if err := config.Errors(problems); err != nil {
		return err
	}
	if err := refuseRoot(os.Geteuid(), d.path); err != nil {
		return err
	}
	d.file = local
	if d.came != nil {
		d.moved = d.came.moved
	} else if d.moved, err = stores.ReadMoved(local.Regent.RunDir); err != nil {
		// Where there is no way to the folder, that is what has to be said.
		return errors.Join(makeRunDir(local.Regent.RunDir), err)
	}
	if d.local, err = d.moved.InForce(local); err != nil {
		return err
	}
	d.log = logging.New(os.Stderr, local.Log.Level, local.Log.JSON)
	d.warn(problems)
	return nil
}

func refuseRoot(uid int, path string) error {
	if uid != 0 {
		return nil
	}
	return errors.New("the agent must not run as root, because PostgreSQL refuses to: run it as the user that owns " +
		"the data directory, for example: su postgres -c '" + strings.TrimSpace("regent agent "+path) + "'")
}

func makeRunDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make regent.run_dir: %w: name a folder that this user may write, or create it for it", err)
	}
	return nil
}

// assemble makes everything that can be made without waiting.
func (d *daemon) assemble(ctx context.Context) error {
	c := d.local
	if err := makeRunDir(c.Regent.RunDir); err != nil {
		return err
	}
	var err error
	if d.lock, err = agent.LockDataDir(c.Postgres.DataDir, string(c.Name)); err != nil {
		return advised(err, "name a data directory (postgresql.data_dir) that the agent's user may reach, or open the way to it")
	}
	if err := ownRunDir(ctx, c.Regent.RunDir, c.Postgres.DataDir); err != nil {
		return err
	}
	if err := d.checkHost(ctx); err != nil {
		return err
	}
	if err := d.openJournal(); err != nil {
		return err
	}
	d.keeper = agent.NewKeeper(keeper.LaunchConfig{
		Binary: d.keeperBin, RunDir: c.Regent.RunDir, DataDir: c.Postgres.DataDir,
		LogFile: filepath.Join(c.Regent.RunDir, "keeper.log"),
	}, d.log)
	_, pgc, problems, err := agent.Translate(c, nil, false)
	if err != nil {
		return err
	}
	d.warn(problems)
	if d.pg, err = pgmgr.New(pgc, d.keeper, d.log); err != nil {
		return err
	}
	return d.openStore(ctx)
}

func (d *daemon) openJournal() error {
	hash, err := replay.BinaryHash()
	if err != nil {
		return err
	}
	d.source = &agent.SnapshotSource{Binary: hash}
	c := d.local.Regent
	j, found, err := journal.Open(c.JournalDir, journal.Options{
		MaxSize: c.JournalMaxSize, Snapshot: d.source.Snapshot, Logger: d.log,
	})
	if err != nil {
		return fmt.Errorf("open regent.journal.dir: %w: each member needs a journal folder of its own", err)
	}
	d.journal = j
	if d.resume, err = replay.Resume(found); err != nil {
		d.log.Warn("the journal of the former runs stays readable; a new epoch begins", "err", err)
		j.StartEpoch(err.Error())
	}
	return nil
}

func (d *daemon) openStore(ctx context.Context) error {
	if d.came != nil {
		d.store = d.came.target.store
		return nil
	}
	store, err := openStore(ctx, d.local, d.log)
	if err != nil {
		return err
	}
	d.store = store
	return nil
}

// ownRunDir refuses a run directory whose keeper guards other data: the agent could
// never start PostgreSQL from there. A keeper that is silent is the agent's business.
func ownRunDir(ctx context.Context, runDir, dataDir string) error {
	look, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	st, err := keeper.Peek(look, runDir)
	if err != nil {
		return nil
	}
	mine, err := keeper.Resolve(dataDir)
	if err != nil || st.DataDir == mine {
		return err
	}
	return fmt.Errorf("regent.run_dir %s belongs to the keeper (pid %d) of data directory %s: give this member a run "+
		"directory of its own", runDir, st.KeeperPID, st.DataDir)
}

// settings is what the agent asks for whenever the shared configuration changed.
func (d *daemon) settings(dynamic []byte, patroni bool) (events.Settings, pgmgr.Config, error) {
	d.mu.Lock()
	local := d.local
	d.mu.Unlock()
	set, pgc, problems, err := agent.Translate(local, dynamic, patroni)
	d.warn(problems)
	if err == nil {
		d.keeper.Back(watchdogOf(local.Watchdog, set.TTL), set.TTL)
	}
	return set, pgc, err
}

// watchdogOf is the file's section in the keeper's terms.
func watchdogOf(w config.Watchdog, ttl time.Duration) keeper.Watchdog {
	if w.Mode == "off" {
		return keeper.Watchdog{}
	}
	return keeper.Watchdog{
		Mode: keeper.WatchdogMode(w.Mode), Device: w.Device, Driver: keeper.WatchdogDriver(w.Driver),
		Timeout: keeper.WatchdogTimeout(ttl, w.SafetyMargin),
	}
}

// warn logs each finding about the shared configuration once in the agent's life:
// settings are translated anew whenever the view of the cluster changes.
func (d *daemon) warn(problems []config.Problem) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, line := range config.StartLines(problems) {
		if !d.warned[line] {
			d.warned[line] = true
			d.log.Warn(line)
		}
	}
}

// credentials are those of the REST API, which all members share.
func (d *daemon) credentials() (username, password string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.local.REST.Auth.Username, d.local.REST.Auth.Password.Reveal()
}

// run runs the parts until the agent ends, in the order of ARCHITECTURE's table.
func (d *daemon) run(ctx context.Context, signals <-chan os.Signal) (*agent.Agent, error) {
	peers := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, // members close after each reply
		// Members' certificates are not verified between agents, as in Patroni: what
		// is asked is public, and what decides is the store.
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // see above
	}}
	notifier, err := systemd.New(d.environ)
	if err != nil {
		d.log.Warn("the service manager isn't told how the agent is doing", "err", err)
	}
	service := systemd.NewService(notifier, d.log)
	meter := metrics.New(version, d.journal)
	twin := &twinCheck{name: d.local.Name, mine: d.local.REST.URL(), store: d.store, peers: peers, upgrade: d.upgrade, fits: d.canKeep}
	heard := &listeners{meter: meter, service: service, dataDir: d.local.Postgres.DataDir}
	a := agent.New(agent.Options{
		Name: d.local.Name, Scope: d.local.Scope, Version: version, Settings: d.settings,
		Store: meter.Store(d.store), Postgres: d.pg, Keeper: d.keeper, Journal: d.journal, DataDir: d.local.Postgres.DataDir,
		Peers: peers, Credentials: d.credentials, Resume: d.resume, Snapshots: d.source, Log: d.log,
		Admit: twin.late, Target: d.openTarget, Arrived: d.moved.Epoch, KeeperBase: d.moved.Base,
		Meter: heard, Beat: service.Beat, BeatEvery: service.Every(),
	})
	heard.moved = a.Reload
	if ended, err := twin.early(ctx, signals); ended || err != nil {
		if ended {
			d.log.Info("the agent was asked to end before it began; nothing was touched")
		}
		return a, err
	}
	server, err := d.listen(a, peers, meter)
	if err != nil {
		return a, err
	}
	d.server = server
	var parts sync.WaitGroup
	partsCtx, stopParts := context.WithCancel(ctx)
	defer parts.Wait()
	defer stopParts()
	parts.Go(func() {
		if err := d.journal.Run(partsCtx); err != nil {
			d.log.Error("the journal ended", "err", err)
		}
	})
	apiCtx, stopAPI := context.WithCancel(partsCtx)
	defer stopAPI()
	parts.Go(func() {
		if err := server.Run(apiCtx); err != nil {
			d.log.Error("the REST API ended", "err", err)
		}
	})
	parts.Go(func() { d.obey(partsCtx, a, signals, stopAPI) })
	loopCtx, stopLoop := context.WithCancelCause(ctx)
	defer stopLoop(nil)
	parts.Go(func() { d.upgrades(partsCtx, a, stopLoop) })
	if d.came != nil {
		parts.Go(func() { d.came.leave(partsCtx, d, a) })
	}
	d.log.Info("agent started", "node", string(d.local.Name), "cluster", d.local.Scope, "version", version)
	return a, a.Run(loopCtx)
}

// listeners hear of each step of the loop.
type listeners struct {
	meter   *metrics.Meter
	service *systemd.Service
	dataDir string
	moved   func() // PostgreSQL listens elsewhere than is published
	pid     int    // of the postmaster that was ready last
}

// Stepped implements agent.Meter.
func (l *listeners) Stepped(s *fsm.State, took time.Duration) {
	l.meter.Stepped(s, took)
	l.service.Stepped(s)
	pg := s.Postgres.State
	if !pg.Ready || pg.PID == l.pid {
		return
	}
	l.pid = pg.PID
	if port := pgmgr.ServerPort(l.dataDir); port != 0 && !strings.Contains(s.Settings.ConnURL, fmt.Sprintf(":%d/", port)) {
		l.moved()
	}
}

// listen makes the REST API.
func (d *daemon) listen(a *agent.Agent, peers *http.Client, meter *metrics.Meter) (*api.Server, error) {
	return api.New(api.Options{
		Name: d.local.Name, Scope: d.local.Scope, Version: version, Compat: d.local.Regent.Compat,
		Agent: a, Store: d.store, Peers: peers, Meter: meter, Settings: api.SettingsOf(d.local.REST), Log: d.log,
		Journal: d.journal, Quiet: a.Quiet,
		Ask: func(ctx context.Context, id string, ev events.Event) (bool, string, error) {
			ans, err := a.Ask(ctx, id, ev)
			return ans.OK, ans.Text, err
		},
		Reload: func() { d.reload(a) }, Target: d.describeTarget,
		CheckConfig: func(raw []byte) error {
			_, problems := config.ParseDynamic(raw)
			return config.Errors(problems)
		},
	})
}

// obey turns signals into requests. The REST API goes first, so that load balancers
// look elsewhere before PostgreSQL stops.
func (d *daemon) obey(ctx context.Context, a *agent.Agent, signals <-chan os.Signal, stopAPI func()) {
	for {
		select {
		case <-ctx.Done():
			return
		case sig := <-signals:
			switch sig {
			case syscall.SIGHUP:
				d.reload(a)
				continue
			case syscall.SIGUSR2:
				ask(d.upgrade)
				continue
			}
			stopAPI()
			if err := a.Submit(events.ShutdownRequested{By: sig.String()}); err != nil {
				d.log.Error("the signal could not be obeyed", "err", err)
			}
		}
	}
}

// close frees what assemble made. The keeper ends if its PostgreSQL is down, unless it is
// kept for another program.
func (d *daemon) close(keep bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var errs []error
	for _, s := range []dcs.Store{d.store, d.target.store} {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	if d.keeper != nil {
		if err := d.endKeeper(ctx, keep); err != nil {
			errs = append(errs, err)
		}
		errs = append(errs, d.keeper.Close())
	}
	if d.lock != nil {
		errs = append(errs, d.lock.Release())
	}
	return errors.Join(errs...)
}

func (d *daemon) endKeeper(ctx context.Context, keep bool) error {
	if keep {
		return nil
	}
	err := d.keeper.Shutdown(ctx)
	if errors.Is(err, keeper.ErrRefused) || errors.Is(err, keeper.ErrUnavailable) {
		return nil
	}
	return err
}
