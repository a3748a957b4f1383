package agent

import (
	"encoding/json"
	"fmt"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/internal/config"
	"github.com/pgregent/regent/pgmgr"
)

// Translate merges a member's file with the dynamic configuration, a JSON mapping
// (nil: nothing is shared yet, the file's bootstrap.dcs counts), into what the
// machine and package pgmgr read. Patroni's rules bind the timings while a member
// is a Patroni (S7). The error names every setting that forbids it; problems are
// what was adjusted or ignored.
func Translate(local *config.Config, dynamic []byte, patroni bool) (events.Settings, pgmgr.Config, []config.Problem, error) {
	shares := len(dynamic) > 0
	if !shares {
		dynamic = local.Bootstrap.DCS
	}
	d, problems := config.ParseDynamic(dynamic)
	if err := config.Errors(problems); err != nil {
		return events.Settings{}, pgmgr.Config{}, nil, err
	}
	timings, adjusted := d.Timings(config.TimingRule{Patroni: patroni, Store: local.Store})
	problems = append(problems, adjusted...)
	pg, more := config.Effective(local, d, 0)
	problems = append(problems, more...)
	shared, err := dcs.CompactJSON(local.Bootstrap.DCS)
	if err != nil {
		shared = json.RawMessage("{}")
	}
	set := events.Settings{
		TTL: timings.TTL, LoopWait: timings.LoopWait, RetryTimeout: timings.RetryTimeout,
		PrimaryStartTimeout: d.PrimaryStartTimeout, PrimaryStopTimeout: d.PrimaryStopTimeout, MaximumLagOnFailover: d.MaximumLagOnFailover,
		CheckTimeline: d.CheckTimeline, MaxTimelinesHistory: d.MaxTimelinesHistory, MemberSlotsTTL: d.MemberSlotsTTL,
		Failsafe: d.FailsafeMode, Sync: d.SynchronousMode == "on", SyncStrict: d.SynchronousModeStrict, MaximumLagOnSync: d.MaximumLagOnSyncnode,
		// The file's bootstrap.dcs can't tell whether maintenance mode is on.
		Pause: d.Pause && shares, FencingOff: d.Fencing(local) == config.FencingOff, UseSlots: d.UseSlots, UsePgRewind: pg.Postgres.UsePgRewind,
		RemoveDataDir: pg.Postgres.RemoveDataDirectoryOnRewindFailure || pg.Postgres.RemoveDataDirectoryOnDiverged,
		StopWait:      d.StopWait, MayBootstrap: local.Bootstrap.Present, Tags: local.Tags,
		ConnURL: connURL(local, pgmgr.ServerPort(local.Postgres.DataDir)), APIURL: local.REST.URL(), BootstrapConfig: string(shared),
	}
	return set, postgresConfig(local, d, pg), problems, nil
}

// connURL is what others connect to; it carries no credentials. A changed port isn't told
// before the server listens there, after its restart: runs is where it listens now, 0 if
// it doesn't. An address whose port is another than the server's own leads through
// something else, which has its own time.
func connURL(c *config.Config, runs int) string {
	to := c.Postgres.ConnectAddress
	if runs != 0 && to.Port == c.Postgres.Port {
		to.Port = runs
	}
	database := c.Postgres.Database
	if database == "" {
		database = "postgres"
	}
	return fmt.Sprintf("postgres://%s/%s", to, database)
}

// postgresConfig is the server's part, in pgmgr's terms.
func postgresConfig(local *config.Config, d config.Dynamic, s config.Settings) pgmgr.Config {
	p := s.Postgres
	params := make(map[string]string, len(p.Parameters)+len(s.CommandLine))
	for k, v := range p.Parameters {
		params[k] = v
	}
	for _, c := range s.CommandLine {
		if c.Key != "listen_addresses" && c.Key != "port" && c.Key != "cluster_name" {
			params[c.Key] = c.Value
		}
	}
	out := pgmgr.Config{
		BinDir: p.BinDir, DataDir: p.DataDir, RunDir: local.Regent.RunDir,
		Scope: local.Scope, Name: string(local.Name),
		ListenAddresses: local.Postgres.ListenAddresses, Port: local.Postgres.Port,
		UseUnixSocket: p.UseUnixSocket, Database: p.Database,
		Superuser: credentials(p.Superuser), Replication: credentials(p.Replication),
		Parameters: params, PgHBA: p.PgHBA, PgIdent: p.PgIdent, BootstrapHBA: local.Bootstrap.PgHBA,
		CustomConf: p.CustomConf, RecoveryConf: p.RecoveryConf,
		InitDB: options(local.Bootstrap.InitDB), Basebackup: options(p.Basebackup), PgPassFile: p.PgPass,
		Sync: d.SynchronousMode == "on", SyncStrict: d.SynchronousModeStrict,
		UseSlots: d.UseSlots, UsePgRewind: p.UsePgRewind, StartTimeout: p.PgCtlTimeout,
	}
	if !p.UseUnixSocket {
		out.LocalHost = local.Postgres.LocalHost
	}
	if p.HasRewind {
		out.Rewind = credentials(p.Rewind)
	}
	return out
}

func credentials(c config.Credentials) pgmgr.Credentials {
	return pgmgr.Credentials{
		Username: c.Username, Password: c.Password.Reveal(),
		SSLMode: c.SSLMode, SSLCert: c.SSLCert, SSLKey: c.SSLKey, SSLPassword: c.SSLPassword.Reveal(),
		SSLRootCert: c.SSLRootCert, SSLCRL: c.SSLCRL, SSLCRLDir: c.SSLCRLDir,
		GSSEncMode: c.GSSEncMode, ChannelBinding: c.ChannelBinding, SSLNegotiation: c.SSLNegotiation,
	}
}

func options(in []config.Option) []pgmgr.Option {
	out := make([]pgmgr.Option, len(in))
	for i, o := range in {
		out[i] = pgmgr.Option{Name: o.Name, Value: o.Value}
	}
	return out
}
