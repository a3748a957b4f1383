package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// StoreOptions say what store servers to run. Zero values mean the defaults.
type StoreOptions struct {
	Kind StoreKind
	// Program is the server's, Dir the folder to make.
	Program, Dir string
	// Members is how many servers; 1 by default.
	Members int
	// Hosts, when set, gives the machine that a server runs on, by its name; otherwise all run here.
	Hosts func(name string) (Machine, error)
}

// Stores are the servers of one etcd or Consul cluster, s1, s2 and so on. Close ends them.
type Stores struct {
	Members []*StoreServer
}

// StartStores runs the servers and returns when all of them know a leader.
func StartStores(ctx context.Context, o StoreOptions) (_ *Stores, err error) {
	s := &Stores{}
	defer func() {
		if err != nil {
			err = fmt.Errorf("start %s: %w", o.Kind.Program(), errors.Join(err, s.Close()))
		}
	}()
	if err := os.Mkdir(o.Dir, 0o755); err != nil {
		return nil, err
	}
	for i := range max(o.Members, 1) {
		m := &StoreServer{kind: o.Kind, name: fmt.Sprintf("s%d", i+1), program: o.Program, machine: here{}}
		m.dir = filepath.Join(o.Dir, m.name)
		if o.Hosts != nil {
			if m.machine, err = o.Hosts(m.name); err != nil {
				return nil, err
			}
		}
		s.Members = append(s.Members, m)
		if err := m.lay(); err != nil {
			return nil, err
		}
	}
	for _, m := range s.Members {
		m.all = s.Members
		if err := m.Start(); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, storePatience)
	defer cancel()
	return s, s.Await(ctx)
}

// Await returns when all servers answer and know a leader.
func (s *Stores) Await(ctx context.Context) error {
	for _, m := range s.Members {
		if err := m.Await(ctx); err != nil {
			return err
		}
	}
	return nil
}

// SectionOf is the section of node number i's configuration. With etcd it names all servers. With
// Consul, where an agent knows one server only, it is one for each node in turn.
func (s *Stores) SectionOf(i int) string {
	if s.Members[0].kind == ConsulStore || len(s.Members) == 1 {
		return s.Members[i%len(s.Members)].Section()
	}
	addrs := make([]string, len(s.Members))
	for i, m := range s.Members {
		addrs[i] = m.Addr()
	}
	return fmt.Sprintf("%s:\n  hosts: [%s]\n", s.Members[0].kind, strings.Join(addrs, ", "))
}

// Member returns the server of that name, nil if there is none.
func (s *Stores) Member(name string) *StoreServer {
	for _, m := range s.Members {
		if m.name == name {
			return m
		}
	}
	return nil
}

var (
	errNoStoreLeader = errors.New("no server that answers names one")
	errOneServer     = errors.New("there is one server only")
)

// Leader returns the server that leads, as the first one sees it that knows.
func (s *Stores) Leader(ctx context.Context) (*StoreServer, error) {
	var last error
	for _, m := range s.Members {
		leader, err := m.leader(ctx)
		if err == nil {
			return leader, nil
		}
		last = err
	}
	return nil, fmt.Errorf("find the store's leader: %w: %w", errNoStoreLeader, last)
}

// leader is who leads, as this server says.
func (s *StoreServer) leader(ctx context.Context) (*StoreServer, error) {
	if s.kind == ConsulStore {
		said, err := s.get(ctx, "/v1/status/leader")
		if err != nil {
			return nil, err
		}
		for _, m := range s.all {
			if strings.Trim(strings.TrimSpace(said), `"`) == at(m.machine, m.port[2]) {
				return m, nil
			}
		}
		return nil, errNoStoreLeader
	}
	_, leader, err := s.etcdStatus(ctx)
	if err != nil {
		return nil, err
	}
	for _, m := range s.all {
		if id, _, err := m.etcdStatus(ctx); err == nil && id == leader {
			return m, nil
		}
	}
	return nil, errNoStoreLeader
}

// etcdStatus returns the ids of a server and of whom it follows.
func (s *StoreServer) etcdStatus(ctx context.Context) (id, leader string, err error) {
	said, err := s.post(ctx, "/v3/maintenance/status", "{}")
	if err != nil {
		return "", "", err
	}
	var status struct {
		Header struct {
			MemberID string `json:"member_id"`
		}
		Leader string
	}
	if err := json.Unmarshal([]byte(said), &status); err != nil {
		return "", "", fmt.Errorf("read the status of %s: %w", s.name, err)
	}
	return status.Header.MemberID, status.Leader, nil
}

// MoveLeader has the leader hand over to another server, and returns both when that leads. On a
// busy machine the old leader may win the election after all, and is asked again.
func (s *Stores) MoveLeader(ctx context.Context) (from, to *StoreServer, err error) {
	if len(s.Members) < 2 {
		return nil, nil, fmt.Errorf("move the store's leader: %w", errOneServer)
	}
	if from, err = s.Leader(ctx); err != nil {
		return nil, nil, err
	}
	for {
		if to, err = s.handOver(ctx, from); err == nil {
			return from, to, nil
		}
		if !pause(ctx, pollEvery) {
			return from, nil, fmt.Errorf("move the store's leader: %w", errors.Join(context.Cause(ctx), err))
		}
	}
}

// handOverTimeout is when the leader is asked again.
const handOverTimeout = 3 * time.Second

// handOver asks once, and waits for another leader.
func (s *Stores) handOver(ctx context.Context, from *StoreServer) (*StoreServer, error) {
	ctx, cancel := context.WithTimeout(ctx, handOverTimeout)
	defer cancel()
	var err error
	if from.kind == ConsulStore {
		_, err = from.post(ctx, "/v1/operator/raft/transfer-leader", "")
	} else {
		err = from.moveEtcd(ctx)
	}
	if err != nil {
		return nil, err
	}
	for {
		to, err := s.Leader(ctx)
		if err == nil && to != from {
			return to, nil
		}
		if !pause(ctx, pollEvery) {
			return nil, fmt.Errorf("wait for another one: %w", errors.Join(context.Cause(ctx), err))
		}
	}
}

// moveEtcd hands over to the first other server that answers.
func (s *StoreServer) moveEtcd(ctx context.Context) error {
	for _, m := range s.all {
		if m == s {
			continue
		}
		id, _, err := m.etcdStatus(ctx)
		if err != nil {
			continue
		}
		_, err = s.post(ctx, "/v3/maintenance/transfer-leadership", `{"targetID": "`+id+`"}`)
		return err
	}
	return errors.New("no other server answers")
}

func (s *StoreServer) post(ctx context.Context, path, payload string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*lookTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.Addr()+path, strings.NewReader(payload))
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	said, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s at %s: answer %d: %s", path, s.name, resp.StatusCode, said)
	}
	return string(said), nil
}

// Close ends all servers.
func (s *Stores) Close() error {
	var errs []error
	for _, m := range s.Members {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}

// Name is the server's, and its host's.
func (s *StoreServer) Name() string { return s.name }

// Machine is what the server runs on.
func (s *StoreServer) Machine() Machine { return s.machine }

// Kill ends the server by SIGKILL, also a frozen one, and waits for its end. Start starts it again.
func (s *StoreServer) Kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.runs() {
		return nil
	}
	if err := s.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("end server %s: %w", s.name, err)
	}
	<-s.gone
	return nil
}

// Freeze has the server stand still; Thaw lets it run on.
func (s *StoreServer) Freeze() error { return s.signal(unix.SIGSTOP) }

// Thaw undoes Freeze.
func (s *StoreServer) Thaw() error { return s.signal(unix.SIGCONT) }

func (s *StoreServer) signal(sig unix.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.runs() {
		return fmt.Errorf("send %s to server %s: it isn't running", unix.SignalName(sig), s.name)
	}
	if err := s.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("send %s to server %s: %w", unix.SignalName(sig), s.name, err)
	}
	return nil
}

// Tail returns the last lines of the server's log, for reports.
func (s *StoreServer) Tail(lines int) string {
	content, err := os.ReadFile(s.log())
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(content)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
