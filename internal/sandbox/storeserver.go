package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// StoreKind names where a sandbox's agents keep their state, as a configuration does.
type StoreKind string

// The stores that a sandbox knows.
const (
	RaftStore   StoreKind = "raft" // in the agents themselves: no server
	Etcd3Store  StoreKind = "etcd3"
	ConsulStore StoreKind = "consul"
)

// StoreKinds lists them, the default first.
func StoreKinds() []StoreKind { return []StoreKind{RaftStore, Etcd3Store, ConsulStore} }

// Program is the name of the kind's server; empty: there is none.
func (k StoreKind) Program() string {
	switch k {
	case Etcd3Store:
		return "etcd"
	case ConsulStore:
		return "consul"
	default:
		return ""
	}
}

// Timings are the shortest ttl, loop_wait and retry_timeout that agents on one host may
// reasonably have on the kind.
func (k StoreKind) Timings() (ttl, loopWait, retryTimeout time.Duration) {
	switch k {
	case Etcd3Store:
		return 3 * time.Second, time.Second, time.Second
	case ConsulStore: // which ends no session before 20 s
		return 20 * time.Second, time.Second, 3 * time.Second
	default:
		return 2 * time.Second, time.Second, time.Second
	}
}

// FindStore returns the path of the kind's server: named, or the one in PATH. Empty for a kind
// that has none.
func FindStore(k StoreKind, named string) (string, error) {
	program := k.Program()
	if program == "" {
		return "", nil
	}
	if named == "" {
		named = program
	}
	path, err := exec.LookPath(named)
	if err != nil {
		return "", fmt.Errorf("find a server of %s: %w; install one, or name its program", k, err)
	}
	return filepath.Abs(path)
}

// StoreServer is one server of etcd or Consul, used by a sandbox only. Its methods may be called
// from several goroutines.
type StoreServer struct {
	kind     StoreKind
	name     string
	dir      string
	program  string
	machine  Machine
	reserved ports
	port     [3]int         // for clients, for its peers, and Consul's for servers
	all      []*StoreServer // of its cluster, itself included

	mu   sync.Mutex // guards what follows
	cmd  *exec.Cmd
	gone chan struct{} // closed when the process has ended
}

// storePatience bounds the wait for a server's first answer.
const storePatience = 20 * time.Second

// StartStore runs a server, alone in its cluster, in a folder, which is made, and returns when it
// answers. Close ends it; it dies with the program, too.
func StartStore(ctx context.Context, k StoreKind, program, dir string) (*StoreServer, error) {
	s := &StoreServer{kind: k, name: "store", dir: dir, program: program, machine: here{}}
	s.all = []*StoreServer{s}
	err := s.lay()
	if err == nil {
		err = s.Start()
	}
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, storePatience)
		defer cancel()
		err = s.Await(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", k.Program(), errors.Join(err, s.Close()))
	}
	return s, nil
}

// lay makes the folder and takes the ports.
func (s *StoreServer) lay() error {
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		return err
	}
	for i := range s.port {
		var err error
		if s.port[i], err = s.reserved.take(); err != nil {
			return err
		}
	}
	return nil
}

func (s *StoreServer) log() string { return filepath.Join(s.dir, "log") }

// Start starts the server, on what it wrote when it ran before. It returns when the process runs;
// Await waits for its answer.
func (s *StoreServer) Start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.runs() {
		return nil
	}
	log, err := os.OpenFile(s.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // the server has its own copy
	cmd := exec.Command(s.program, s.arguments()...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.dir, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.machine.Start(cmd); err != nil {
		return fmt.Errorf("start server %s: %w", s.name, err)
	}
	gone := make(chan struct{})
	s.cmd, s.gone = cmd, gone
	go func() {
		_ = cmd.Wait() // how it ended is in its log
		close(gone)
	}()
	return nil
}

// runs reports that the process hasn't ended. The caller holds mu.
func (s *StoreServer) runs() bool {
	if s.gone == nil {
		return false
	}
	select {
	case <-s.gone:
		return false
	default:
		return true
	}
}

func (s *StoreServer) arguments() []string {
	data := filepath.Join(s.dir, "data")
	if s.kind == ConsulStore {
		args := []string{
			"agent", "-server", fmt.Sprintf("-bootstrap-expect=%d", len(s.all)), "-data-dir", data, "-node=" + s.name, "-log-level=warn",
			"-bind=" + s.machine.Addr(), "-client=" + s.machine.Addr(), fmt.Sprintf("-http-port=%d", s.port[0]), fmt.Sprintf("-serf-lan-port=%d", s.port[1]),
			fmt.Sprintf("-server-port=%d", s.port[2]), "-serf-wan-port=-1", "-dns-port=-1", "-grpc-port=-1", "-grpc-tls-port=-1",
			"-hcl=performance { raft_multiplier = 1 } disable_update_check = true connect { enabled = false } autopilot { cleanup_dead_servers = false }",
		}
		for _, other := range s.all {
			if other != s {
				args = append(args, "-retry-join="+at(other.machine, other.port[1]), "-retry-interval=1s")
			}
		}
		return args
	}
	client, peer := "http://"+s.Addr(), "http://"+at(s.machine, s.port[1])
	var cluster []string
	for _, member := range s.all {
		cluster = append(cluster, member.name+"=http://"+at(member.machine, member.port[1]))
	}
	return []string{
		"--name", s.name, "--data-dir", data, "--initial-cluster", strings.Join(cluster, ","),
		"--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
		"--heartbeat-interval", "100", "--election-timeout", "500", "--log-level", "warn", "--logger", "zap",
	}
}

// Await returns when the server answers and knows a leader, which may be itself.
func (s *StoreServer) Await(ctx context.Context) error {
	path, ready := "/health", `"true"`
	if s.kind == ConsulStore {
		path, ready = "/v1/status/leader", ":"
	}
	s.mu.Lock()
	gone := s.gone
	s.mu.Unlock()
	var last error
	for {
		var said string
		if said, last = s.get(ctx, path); last == nil && strings.Contains(said, ready) {
			return nil
		}
		select {
		case <-gone:
			return s.quote(errors.New("it ended by itself"))
		case <-ctx.Done():
			return s.quote(fmt.Errorf("it doesn't answer: %w", errors.Join(context.Cause(ctx), last)))
		case <-time.After(pollEvery):
		}
	}
}

// quote adds what the server said last.
func (s *StoreServer) quote(err error) error {
	said, _ := os.ReadFile(s.log()) // what it said is an extra
	return fmt.Errorf("wait for server %s: %w\n%s", s.name, err, said[max(0, len(said)-2000):])
}

// get asks the server, with little patience: a frozen one never answers.
func (s *StoreServer) get(ctx context.Context, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	return get(ctx, "http://"+s.Addr()+path)
}

func get(ctx context.Context, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return string(body), errors.Join(err, resp.Body.Close())
}

// Section is the section of a configuration that names the server.
func (s *StoreServer) Section() string { return fmt.Sprintf("%s:\n  host: %s\n", s.kind, s.Addr()) }

// Addr is where it serves clients.
func (s *StoreServer) Addr() string { return at(s.machine, s.port[0]) }

// Requests are how many reads, writes and renewals of leases etcd has served, by its own metrics.
func (s *StoreServer) Requests(ctx context.Context) (map[string]float64, error) {
	text, err := get(ctx, "http://"+s.Addr()+"/metrics")
	if err != nil {
		return nil, fmt.Errorf("ask etcd for its metrics: %w", err)
	}
	kinds := map[string]string{
		"etcd_mvcc_range_total": "reads", "etcd_mvcc_put_total": "writes", "etcd_debugging_lease_renewed_total": "renewals of leases",
	}
	out := map[string]float64{}
	for line := range strings.SplitSeq(text, "\n") {
		name, value, _ := strings.Cut(line, " ")
		if kind := kinds[name]; kind != "" {
			if out[kind], err = strconv.ParseFloat(value, 64); err != nil {
				return nil, fmt.Errorf("read etcd's metrics: %s: %w", line, err)
			}
		}
	}
	if len(out) != len(kinds) {
		return nil, fmt.Errorf("etcd's metrics tell %v only", out)
	}
	return out, nil
}

// Close ends the server and waits for its end. What it wrote stays in its folder.
func (s *StoreServer) Close() error {
	return errors.Join(s.Kill(), s.reserved.release())
}
