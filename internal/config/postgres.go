package config

import "time"

// Postgres is the postgresql section, local or with /config merged into it.
type Postgres struct {
	// ListenAddresses is PostgreSQL's setting of that name, Port the other half of listen.
	ListenAddresses string
	Port            int
	// LocalHost is where the agent itself connects to: the first listen address, or
	// the loopback address when that stands for all.
	LocalHost string
	// ConnectAddress is published to others; ProxyAddress is zero unless set.
	ConnectAddress, ProxyAddress Address

	DataDir        string
	ConfigDir      string // = DataDir unless set
	ConfigBaseName string // without .conf
	BinDir         string // empty: search $PATH
	// BinName maps a program's usual name to the one to call; only differences.
	BinName  map[string]string
	PgPass   string
	Database string

	Superuser, Replication Credentials
	// Rewind is a copy of Superuser when the file has no such role; HasRewind tells.
	Rewind    Credentials
	HasRewind bool

	UseUnixSocket, UseUnixSocketRepl bool

	// Parameters are PostgreSQL's settings as text (true and false as on and off), in
	// the spelling of the file; a null one is absent. In a local section these are the
	// file's own, in an Effective one what belongs into postgresql.conf.
	Parameters map[string]string
	// PgHBA and PgIdent are complete files; nil leaves the file alone.
	PgHBA, PgIdent []string
	CustomConf     string
	// RecoveryConf holds restore_command and its like.
	RecoveryConf map[string]string

	UsePgRewind bool
	// UseSlots counts in an Effective section only.
	UseSlots                           bool
	RemoveDataDirectoryOnRewindFailure bool
	RemoveDataDirectoryOnDiverged      bool
	PgCtlTimeout                       time.Duration
	CreateReplicaMethods               []string
	// Basebackup are the allowed options, in order.
	Basebackup []Option
	// Callbacks maps on_start, on_stop, on_restart, on_reload, on_role_change to a
	// command line.
	Callbacks              map[string]string
	PrePromote, BeforeStop string
}

// Credentials of one of the roles. All but the first two are libpq's parameters.
type Credentials struct {
	Username string
	Password Secret

	SSLMode, SSLCert, SSLKey, SSLRootCert, SSLCRL, SSLCRLDir string
	SSLPassword                                              Secret
	GSSEncMode, ChannelBinding, SSLNegotiation               string
}

// Param is one libpq parameter.
type Param struct {
	Key   string
	Value string
}

// LibpqParams lists what is set besides user and password, in libpq's customary order.
// The server's version decides which of them the server knows.
func (c Credentials) LibpqParams() []Param {
	all := []Param{
		{"sslmode", c.SSLMode},
		{"sslcert", c.SSLCert},
		{"sslkey", c.SSLKey},
		{"sslpassword", c.SSLPassword.Reveal()},
		{"sslrootcert", c.SSLRootCert},
		{"sslcrl", c.SSLCRL},
		{"sslcrldir", c.SSLCRLDir},
		{"gssencmode", c.GSSEncMode},
		{"channel_binding", c.ChannelBinding},
		{"sslnegotiation", c.SSLNegotiation},
	}
	var set []Param
	for _, p := range all {
		if p.Value != "" {
			set = append(set, p)
		}
	}
	return set
}
