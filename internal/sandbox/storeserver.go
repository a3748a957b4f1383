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

// StoreServer is one server of etcd or Consul, alone in its cluster and used by a sandbox only.
type StoreServer struct {
	kind  StoreKind
	dir   string
	addr  string // where it serves clients
	ports ports
	cmd   *exec.Cmd
	gone  chan struct{} // closed when the process has ended
}

// storePatience bounds the wait for a server's first answer.
const storePatience = 20 * time.Second

// StartStore runs a server in a folder, which is made, and returns when it answers. Close ends it;
// it dies with the program, too.
func StartStore(ctx context.Context, k StoreKind, program, dir string) (_ *StoreServer, err error) {
	s := &StoreServer{kind: k, dir: dir, gone: make(chan struct{})}
	defer func() {
		if err != nil {
			err = fmt.Errorf("start %s: %w", k.Program(), errors.Join(err, s.Close()))
		}
	}()
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	var port [3]int
	for i := range port {
		if port[i], err = s.ports.take(); err != nil {
			return nil, err
		}
	}
	s.addr = fmt.Sprintf("127.0.0.1:%d", port[0])
	if err := s.run(program, port); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, storePatience)
	defer cancel()
	if err := s.await(ctx); err != nil {
		said, _ := os.ReadFile(s.log()) // what it said is an extra
		return nil, fmt.Errorf("%w\n%s", err, said[max(0, len(said)-2000):])
	}
	return s, nil
}

func (s *StoreServer) log() string { return filepath.Join(s.dir, "log") }

func (s *StoreServer) run(program string, port [3]int) error {
	log, err := os.OpenFile(s.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // the server has its own copy
	cmd := exec.Command(program, s.arguments(port)...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.dir, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	s.cmd = cmd
	go func() {
		_ = cmd.Wait() // how it ended is in its log
		close(s.gone)
	}()
	return nil
}

func (s *StoreServer) arguments(port [3]int) []string {
	data := filepath.Join(s.dir, "data")
	if s.kind == ConsulStore {
		return []string{
			"agent", "-server", "-bootstrap-expect=1", "-data-dir", data, "-node=store", "-log-level=warn",
			"-bind=127.0.0.1", "-client=127.0.0.1", fmt.Sprintf("-http-port=%d", port[0]), fmt.Sprintf("-serf-lan-port=%d", port[1]),
			fmt.Sprintf("-server-port=%d", port[2]), "-serf-wan-port=-1", "-dns-port=-1", "-grpc-port=-1", "-grpc-tls-port=-1",
			"-hcl=performance { raft_multiplier = 1 } disable_update_check = true connect { enabled = false }",
		}
	}
	client, peer := "http://"+s.addr, fmt.Sprintf("http://127.0.0.1:%d", port[1])
	return []string{
		"--name", "store", "--data-dir", data, "--initial-cluster", "store=" + peer,
		"--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
		"--heartbeat-interval", "100", "--election-timeout", "500", "--log-level", "warn", "--logger", "zap",
	}
}

// await returns when the server has a leader, which is itself.
func (s *StoreServer) await(ctx context.Context) error {
	path, ready := "/health", `"true"`
	if s.kind == ConsulStore {
		path, ready = "/v1/status/leader", `127.0.0.1`
	}
	var last error
	for {
		var said string
		if said, last = get(ctx, "http://"+s.addr+path); last == nil && strings.Contains(said, ready) {
			return nil
		}
		select {
		case <-s.gone:
			return errors.New("it ended by itself")
		case <-ctx.Done():
			return fmt.Errorf("it doesn't answer: %w", errors.Join(context.Cause(ctx), last))
		case <-time.After(20 * time.Millisecond):
		}
	}
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
func (s *StoreServer) Section() string { return fmt.Sprintf("%s:\n  host: %s\n", s.kind, s.addr) }

// Addr is where it serves clients.
func (s *StoreServer) Addr() string { return s.addr }

// Requests are how many reads, writes and renewals of leases etcd has served, by its own metrics.
func (s *StoreServer) Requests(ctx context.Context) (map[string]float64, error) {
	text, err := get(ctx, "http://"+s.addr+"/metrics")
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
	if s.cmd != nil {
		if err := s.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("end %s: %w", s.kind.Program(), err)
		}
		<-s.gone
	}
	return s.ports.release()
}

// Dir is the folder that it works in.
func (s *StoreServer) Dir() string { return s.dir }
