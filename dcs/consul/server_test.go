package consul

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/pgregent/regent/dcs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// consulBinary finds the server that scripts/consul-server.sh builds, or another one.
func consulBinary(t *testing.T) string {
	t.Helper()
	candidates := []string{os.Getenv("CONSUL_BIN")}
	cache := os.Getenv("XDG_CACHE_HOME")
	if home, err := os.UserHomeDir(); cache == "" && err == nil {
		cache = filepath.Join(home, ".cache")
	}
	built, err := filepath.Glob(filepath.Join(cache, "regent", "consul-*", "consul"))
	if err != nil {
		t.Fatal(err)
	}
	candidates = append(candidates, built...)
	if path, err := exec.LookPath("consul"); err == nil {
		candidates = append(candidates, path)
	}
	for _, c := range candidates {
		if info, err := os.Stat(c); err == nil && info.Mode().IsRegular() {
			return c
		}
	}
	const missing = "no Consul server on this machine: scripts/consul-server.sh builds one, or set CONSUL_BIN"
	if os.Getenv("CI") != "" {
		t.Fatal(missing)
	}
	t.Skip(missing)
	return ""
}

// server is a Consul server of its own, which can be killed, frozen and started again on
// the same disk.
type server struct {
	binary string
	folder string
	config map[string]any
	http   string // host:port of its API
	token  string // for the harness's own questions

	cmd    *exec.Cmd
	exited chan struct{}
}

// quick are the settings of a server that elects and ends sessions in a second or two.
func quick(folder string) map[string]any {
	return map[string]any{
		"server": true, "data_dir": filepath.Join(folder, "data"), "node_name": filepath.Base(folder),
		"client_addr": "127.0.0.1", "bind_addr": "127.0.0.1", "bootstrap_expect": 1, "log_level": "warn",
		"session_ttl_min": "250ms", "performance": map[string]any{"raft_multiplier": 1, "rpc_hold_timeout": "1s"},
		"leave_on_terminate": false, "skip_leave_on_interrupt": true, "disable_update_check": true,
		"connect": map[string]any{"enabled": false}, "disable_remote_exec": true,
		"autopilot": map[string]any{"cleanup_dead_servers": false}, "retry_interval": "500ms",
		"limits": map[string]any{"http_max_conns_per_client": 2000},
		"ports": map[string]any{
			"http": freePort(), "dns": -1, "grpc": -1, "grpc_tls": -1, "serf_wan": -1,
			"serf_lan": freePort(), "server": freePort(),
		},
	}
}

// freePort is one that nobody listens on. Somebody could take it before we do, which ends
// the server that was to have it, and the test with its log.
func freePort() int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// newServer starts a server with settings over the quick ones, and ends it with the test.
func newServer(t *testing.T, name string, settings map[string]any) *server {
	t.Helper()
	s := &server{binary: consulBinary(t), folder: filepath.Join(t.TempDir(), name)}
	if err := os.MkdirAll(s.folder, 0o700); err != nil {
		t.Fatal(err)
	}
	s.config = quick(s.folder)
	maps.Copy(s.config, settings)
	ports := s.config["ports"].(map[string]any)
	s.http = fmt.Sprintf("127.0.0.1:%d", ports["http"])
	if https, ok := ports["https"]; ok {
		s.http = fmt.Sprintf("127.0.0.1:%d", https)
	}
	t.Cleanup(func() {
		if err := s.kill(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			if log, err := os.ReadFile(s.log()); err == nil {
				t.Logf("%s says:\n%s", name, tail(string(log), 4000))
			}
		}
	})
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	return s
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

func (s *server) log() string { return filepath.Join(s.folder, "log") }

func (s *server) start() error {
	text, err := json.Marshal(s.config)
	if err != nil {
		return err
	}
	file := filepath.Join(s.folder, "config.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return err
	}
	out, err := os.OpenFile(s.log(), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	s.cmd = exec.Command(s.binary, "agent", "-config-file", file)
	s.cmd.Stdout, s.cmd.Stderr = out, out
	// It goes when the test's process is killed.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("start consul: %w", err)
	}
	s.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan<- struct{}) {
		_ = cmd.Wait() // how it ended is in its log
		close(exited)
	}(s.cmd, s.exited)
	return nil
}

// kill ends the server at once, and waits.
func (s *server) kill() error { return s.signal(syscall.SIGKILL, true) }

func (s *server) signal(sig syscall.Signal, wait bool) error {
	if s.cmd == nil {
		return nil
	}
	if err := s.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal consul: %w", err)
	}
	if wait {
		<-s.exited
	}
	return nil
}

// get asks the server's API and returns its answer's text, or "".
func (s *server) get(ctx context.Context, path string) string {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.http+path, nil)
	if err != nil {
		return ""
	}
	r.Header.Set("X-Consul-Token", s.token)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(r)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	text := make([]byte, 4096)
	n, _ := resp.Body.Read(text)
	if resp.StatusCode != http.StatusOK {
		return ""
	}
	return strings.TrimSpace(string(text[:n]))
}

// opened is a client of a server, for a cluster of its own unless it is told otherwise.
func opened(t *testing.T, cfg Config) *Store {
	t.Helper()
	if cfg.Base == "" {
		cfg.Base, cfg.Scope = dcs.BasePath("service", "main"), "main"
	}
	s, err := Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// usable waits until a store takes writes.
func usable(t *testing.T, s dcs.Store) {
	t.Helper()
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); pause(20 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		_, err = s.Commit(ctx, dcs.Txn{Writes: []dcs.Write{dcs.Put("usable", nil)}})
		if err == nil {
			// A session needs the server's node in the catalogue.
			var l dcs.Lease
			if l, err = s.Grant(ctx, "", 30*time.Second); err == nil {
				err = s.Revoke(ctx, l.ID)
			}
		}
		cancel()
		if err == nil {
			return
		}
	}
	t.Fatalf("consul takes no writes: %v", err)
}

// pause lets real time pass in a loop that waits for a condition.
func pause(d time.Duration) { rest(context.Background(), d) }

// rpc is the address at which other servers know this one.
func (s *server) rpc() string {
	address := s.config["bind_addr"]
	if told, ok := s.config["advertise_addr"]; ok {
		address = told
	}
	return fmt.Sprintf("%s:%d", address, s.config["ports"].(map[string]any)["server"])
}
