package embedded

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/internal/mono"
	"github.com/pgregent/regent/internal/tlsconf"
)

// Config of a node of the embedded store.
type Config struct {
	// Name is the member's name: the value of the leader key when it holds it.
	Name events.NodeName
	// Cluster keeps clusters apart that meet by mistake. Nodes with different ones
	// refuse each other; empty matches everything.
	Cluster string
	// SelfAddr is where the others reach this node, host:port. It must be spelled the
	// same in everybody's list.
	SelfAddr string
	// BindAddr to listen on; SelfAddr when empty.
	BindAddr string
	// PartnerAddrs are the others. Together with SelfAddr they are the member list,
	// which must be the same set on all nodes when the cluster is made.
	PartnerAddrs []string
	// DataDir is the raft folder. It holds what this node has promised to others: a
	// lost folder makes it a new node, a copied one breaks the cluster.
	DataDir string
	// TLS, or else Secret, protects the port; with neither it is plain text. See
	// Security for more than one secret, and Store.Secure for changing them.
	TLS    *tls.Config
	Secret string
	// Timings; zero values mean the defaults.
	Timings Timings
	// Logger receives what operators should know. Required.
	Logger *slog.Logger

	snapshotEvery time.Duration // how often the log's length is looked at

	network network               // tests replace it; nil: TCP
	now     func() events.Instant // tests replace it; nil: the boot clock
	// diskOf lets tests put faults over the folder; nil: none.
	diskOf func(logAndTerms) logAndTerms
}

// Timings of raft. The defaults suit one data centre.
type Timings struct {
	// Heartbeat is how long a follower waits for the leader before it stands for
	// election. Default 300 ms.
	Heartbeat time.Duration
	// Election is how long a candidate waits for votes. Default: Heartbeat.
	Election time.Duration
	// LeaderLease is how long a leader goes on without hearing from a majority.
	// Default: Heartbeat. Nothing rests on it but how soon a leader that is cut off
	// notices: reads and renewals are log entries.
	LeaderLease time.Duration
	// Commit is how long an idle leader waits before it tells followers again how far
	// the log is committed; it bounds the age of local views. Default 300 ms.
	Commit time.Duration
	// TransferPause is the least time between two moves of raft leadership away from
	// the holder's node (safety rule S18). Default 5 s.
	TransferPause time.Duration
}

// LogValue keeps the secret out of logs.
func (c Config) LogValue() slog.Value {
	return slog.GroupValue(slog.String("node", string(c.Name)), slog.String("self_addr", c.SelfAddr))
}

func (c Config) withDefaults() Config {
	set := func(d *time.Duration, value time.Duration) {
		if *d == 0 {
			*d = value
		}
	}
	set(&c.Timings.Heartbeat, 300*time.Millisecond)
	set(&c.Timings.Election, c.Timings.Heartbeat)
	set(&c.Timings.LeaderLease, c.Timings.Heartbeat)
	set(&c.Timings.Commit, 300*time.Millisecond)
	set(&c.Timings.TransferPause, 5*time.Second)
	if c.BindAddr == "" {
		c.BindAddr = c.SelfAddr
	}
	set(&c.snapshotEvery, 30*time.Second)
	if c.network == nil {
		c.network = tcp{}
	}
	if c.now == nil {
		c.now = mono.Now
	}
	if c.diskOf == nil {
		c.diskOf = func(folder logAndTerms) logAndTerms { return folder }
	}
	return c
}

// validate returns ErrBroken with everything that is wrong with the settings.
func (c Config) validate() error {
	var wrong []string
	if c.Name == "" || strings.ContainsAny(string(c.Name), " \n") {
		wrong = append(wrong, fmt.Sprintf("name %q", c.Name))
	}
	if c.DataDir == "" {
		wrong = append(wrong, "no data_dir")
	}
	if c.Logger == nil {
		wrong = append(wrong, "no logger")
	}
	for _, addr := range append([]string{c.SelfAddr, c.BindAddr}, c.PartnerAddrs...) {
		if _, port, err := net.SplitHostPort(addr); err != nil || port == "" {
			wrong = append(wrong, fmt.Sprintf("address %q is not host:port", addr))
		}
	}
	if host, _, err := net.SplitHostPort(c.SelfAddr); err == nil {
		if ip := net.ParseIP(host); host == "" || (ip != nil && ip.IsUnspecified()) {
			wrong = append(wrong, fmt.Sprintf("self_addr %q can't be reached by others: name an address", c.SelfAddr))
		}
	}
	if t := c.Timings; t.LeaderLease > t.Heartbeat || t.Heartbeat < 0 || t.Election < t.Heartbeat {
		wrong = append(wrong, "timings: leader lease ≤ heartbeat ≤ election doesn't hold")
	}
	if len(wrong) > 0 {
		return fmt.Errorf("raft settings: %w: %s", dcs.ErrBroken, strings.Join(wrong, "; "))
	}
	return nil
}

// members is the member list as every node should see it: sorted, each once.
func (c Config) members() []string {
	list := append([]string{c.SelfAddr}, c.PartnerAddrs...)
	slices.Sort(list)
	return slices.Compact(list)
}

// partners is the member list without this node.
func (c Config) partners() []string {
	return slices.DeleteFunc(c.members(), func(addr string) bool { return addr == c.SelfAddr })
}

// Security is what protects the port, in the order of precedence.
type Security struct {
	// Files of certificates, when Files.Cert is set.
	Files tlsconf.Files
	// Secret of the cluster, when it isn't empty. Accept is a second one that others
	// may use, while the secret is being changed; see tlsconf.FromSecret.
	Secret, Accept string
}

// TLS returns the configuration of the named node; nil for plain text.
func (s Security) TLS(node string) (*tls.Config, error) {
	var out *tls.Config
	var err error
	switch {
	case s.Files.Cert != "":
		out, err = tlsconf.FromFiles(s.Files)
	case s.Secret != "" && s.Accept != "":
		out, err = tlsconf.FromSecret(s.Secret, node, s.Accept)
	case s.Secret != "":
		out, err = tlsconf.FromSecret(s.Secret, node)
	}
	if err != nil {
		return nil, fmt.Errorf("raft settings: %w: %w", dcs.ErrBroken, err)
	}
	return out, nil
}

// guard is the port's TLS, which can be replaced while connections are made; nil means
// plain text. Connections that stand aren't touched.
type guard struct{ atomic.Pointer[tls.Config] }

func newGuard(cfg *tls.Config) *guard {
	g := &guard{}
	g.Store(cfg)
	return g
}

// Secure makes the next connections use another configuration, on both ends; those that
// stand stay. From plain text to TLS or back takes a restart of every node: ErrRefused.
func (s *Store) Secure(cfg *tls.Config) error {
	if (cfg == nil) != (s.guard.Load() == nil) {
		return fmt.Errorf("raft port: %w: changing between plain text and TLS takes a restart", dcs.ErrRefused)
	}
	s.guard.Store(cfg)
	return nil
}

func tlsOf(cfg *tls.Config, secret, node string) (*tls.Config, error) {
	if cfg != nil {
		return cfg, nil
	}
	return Security{Secret: secret}.TLS(node)
}

// network is what the store needs of one; tests put faults and fake time under it.
type network interface {
	Listen(addr string) (net.Listener, error)
	Dial(ctx context.Context, addr string) (net.Conn, error)
}

type tcp struct{}

func (tcp) Listen(addr string) (net.Listener, error) {
	return (&net.ListenConfig{KeepAlive: 5 * time.Second}).Listen(context.Background(), "tcp", addr)
}

func (tcp) Dial(ctx context.Context, addr string) (net.Conn, error) {
	return (&net.Dialer{KeepAlive: 5 * time.Second}).DialContext(ctx, "tcp", addr)
}
