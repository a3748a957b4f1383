package consultest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgregent/regent/dcs/dcstest"
)

// Find returns the server that scripts/consul-server.sh builds, or another one: that of
// CONSUL_BIN first, then one beside this program (see package storetest), that of PATH last.
func Find() (string, error) {
	candidates := []string{os.Getenv("CONSUL_BIN")}
	if self, err := os.Executable(); err == nil {
		candidates = append(candidates, filepath.Join(filepath.Dir(self), "consul"))
	}
	cache := os.Getenv("XDG_CACHE_HOME")
	if home, err := os.UserHomeDir(); cache == "" && err == nil {
		cache = filepath.Join(home, ".cache")
	}
	built, err := filepath.Glob(filepath.Join(cache, "regent", "consul-*", "consul"))
	if err != nil {
		return "", fmt.Errorf("look for consul: %w", err)
	}
	candidates = append(candidates, built...)
	if path, err := exec.LookPath("consul"); err == nil {
		candidates = append(candidates, path)
	}
	for _, c := range candidates {
		if info, err := os.Stat(c); err == nil && info.Mode().IsRegular() {
			return c, nil
		}
	}
	return "", errors.New("no Consul server on this machine: scripts/consul-server.sh builds one, or set CONSUL_BIN")
}

// Binary finds the server, or skips the test, which fails instead when CI is set.
func Binary(t testing.TB) string {
	t.Helper()
	path, err := Find()
	switch {
	case err == nil:
	case os.Getenv("CI") != "":
		t.Fatal(err)
	default:
		t.Skip(err)
	}
	return path
}

// Server is a Consul server of its own, which can be killed, frozen and started again on
// the same disk. It is used from one goroutine at a time, but for Get.
type Server struct {
	// HTTP is host:port of its API, HTTPS when it speaks TLS.
	HTTP string
	// Token is for the harness's own questions.
	Token string
	// Folder holds its data, its log and its configuration.
	Folder string

	binary string
	config map[string]any
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
			"http": FreePort(), "dns": -1, "grpc": -1, "grpc_tls": -1, "serf_wan": -1,
			"serf_lan": FreePort(), "server": FreePort(),
		},
	}
}

// FreePort is one that nobody listens on; 0, which Consul refuses, if there is none.
func FreePort() int {
	port, err := dcstest.FreePort()
	if err != nil {
		return 0
	}
	return port
}

// Start starts a server with settings over those of a quick one, and ends it with the test.
func Start(t testing.TB, name string, settings map[string]any) *Server {
	t.Helper()
	s := &Server{binary: Binary(t), Folder: filepath.Join(t.TempDir(), name)}
	if err := os.MkdirAll(s.Folder, 0o700); err != nil {
		t.Fatal(err)
	}
	s.config = quick(s.Folder)
	maps.Copy(s.config, settings)
	ports := s.config["ports"].(map[string]any)
	s.HTTP = fmt.Sprintf("127.0.0.1:%d", ports["http"])
	if https, ok := ports["https"]; ok {
		s.HTTP = fmt.Sprintf("127.0.0.1:%d", https)
	}
	t.Cleanup(func() {
		if err := s.Kill(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			if log, err := os.ReadFile(s.log()); err == nil {
				t.Logf("%s says:\n%s", name, tail(string(log), 4000))
			}
		}
	})
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	return s
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

func (s *Server) log() string { return filepath.Join(s.Folder, "log") }

// Start starts it again, on its disk and its ports.
func (s *Server) Start() error {
	text, err := json.Marshal(s.config)
	if err != nil {
		return err
	}
	file := filepath.Join(s.Folder, "config.json")
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

// Kill ends the server at once, and waits.
func (s *Server) Kill() error { return s.Signal(syscall.SIGKILL, true) }

// Signal sends a signal, and waits for the server's end if it is told to.
func (s *Server) Signal(sig syscall.Signal, wait bool) error {
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

// Get asks the server's API and returns its answer's text, or "".
func (s *Server) Get(ctx context.Context, path string) string {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.HTTP+path, nil)
	if err != nil {
		return ""
	}
	r.Header.Set("X-Consul-Token", s.Token)
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

// RPC is the address at which other servers know this one.
func (s *Server) RPC() string {
	address := s.config["bind_addr"]
	if told, ok := s.config["advertise_addr"]; ok {
		address = told
	}
	return fmt.Sprintf("%s:%d", address, s.config["ports"].(map[string]any)["server"])
}

// Name is the server's among the others.
func (s *Server) Name() string { return filepath.Base(s.Folder) }
