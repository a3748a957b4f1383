package consul

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
)

// Service says how the member is announced in Consul's catalogue (register_service).
type Service struct {
	Enabled bool
	// Tags are the service's besides its role (service_tags).
	Tags []string
	// CheckInterval is how often Consul asks the member's REST API for its role; 5 s when zero.
	CheckInterval time.Duration
	// CheckTLSServerName is the name that the REST API's certificate must have.
	CheckTLSServerName string
}

const defaultCheckInterval = 5 * time.Second

func (s Service) validate() error {
	if s.CheckInterval < 0 {
		return unusable("service_check_interval %v", s.CheckInterval)
	}
	return nil
}

// registrar follows what the member publishes of itself and tells Consul. It is late by as
// long as the agent doesn't answer, and never in anybody's way.
type registrar struct {
	store *Store
	wake  chan struct{}

	mu        sync.Mutex // guards published
	published []byte
}

func newRegistrar(s *Store) *registrar { return &registrar{store: s, wake: make(chan struct{}, 1)} }

// published notes the newest form of the member's key.
func (r *registrar) publish(value []byte) {
	r.mu.Lock()
	r.published = slices.Clone(value)
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// run registers until ctx ends. The registration stays.
func (r *registrar) run(ctx context.Context) {
	var last string // what Consul was told
	pause := firstPause
	for ctx.Err() == nil {
		r.mu.Lock()
		published := r.published
		r.mu.Unlock()
		if len(published) > 0 {
			told, err := r.tell(ctx, published, last)
			if err != nil && ctx.Err() == nil {
				r.store.cfg.Log.Warn("the service can't be registered in Consul; trying again", "err", err)
				rest(ctx, pause)
				pause = min(2*pause, lastPause)
				continue
			}
			last, pause = told, firstPause
		}
		select {
		case <-ctx.Done():
		case <-r.wake:
		}
	}
}

// tell brings the agent up to a member's state, and returns what it knows now.
func (r *registrar) tell(ctx context.Context, published []byte, last string) (told string, err error) {
	want, gone, err := r.store.registration(published)
	if err != nil {
		r.store.cfg.Log.Warn("the member's key can't be announced as a service", "err", err)
		return last, nil
	}
	ctx, cancel := r.store.call(ctx)
	defer cancel()
	agent := r.store.client.Agent()
	switch {
	case gone && last == "":
		return last, nil
	case gone:
		if err := agent.ServiceDeregisterOpts(r.store.serviceID(), r.store.query(ctx)); err != nil {
			return last, classify("deregister", writes, err)
		}
		return "", nil
	case want == nil:
		return last, nil
	}
	text, err := json.Marshal(want)
	if err != nil || string(text) == last {
		return last, err
	}
	if err := agent.ServiceRegisterOpts(want, api.ServiceRegisterOpts{Token: *r.store.token.Load()}.WithContext(ctx)); err != nil {
		return last, classify("register", writes, err)
	}
	return string(text), nil
}

func (s *Store) serviceID() string { return s.cfg.Scope + "/" + string(s.cfg.Name) }

// registration is the service of a member that runs. gone: it has stopped. Neither: it is on
// its way somewhere, and stays as it was.
func (s *Store) registration(published []byte) (service *api.AgentServiceRegistration, gone bool, err error) {
	var m struct {
		State   string `json:"state"`
		Role    string `json:"role"`
		ConnURL string `json:"conn_url"`
		APIURL  string `json:"api_url"`
	}
	if err := json.Unmarshal(published, &m); err != nil {
		return nil, false, fmt.Errorf("member key: %w", err)
	}
	if m.State == "stopped" {
		return nil, true, nil
	}
	role := strings.ReplaceAll(m.Role, "_", "-")
	if role == "master" {
		role = "primary"
	}
	if m.State != "running" || !slices.Contains([]string{"primary", "replica", "standby-leader"}, role) {
		return nil, false, nil
	}
	conn, err := url.Parse(m.ConnURL)
	if err != nil {
		return nil, false, fmt.Errorf("conn_url: %w", err)
	}
	port, err := strconv.Atoi(conn.Port())
	if err != nil {
		port = 5432
	}
	check, err := url.Parse(m.APIURL)
	if err != nil {
		return nil, false, fmt.Errorf("api_url: %w", err)
	}
	check.Path = "/" + role
	tags := append(slices.Sorted(slices.Values(s.cfg.Register.Tags)), role)
	if role == "primary" {
		tags = append(tags, "master") // for those who ask for it under its former name
	}
	interval := s.cfg.Register.CheckInterval
	if interval == 0 {
		interval = defaultCheckInterval
	}
	return &api.AgentServiceRegistration{
		ID: s.serviceID(), Name: serviceName(s.cfg.Scope), Tags: tags, EnableTagOverride: true,
		Address: host(conn.Host), Port: port,
		Check: &api.AgentServiceCheck{
			HTTP: check.String(), Interval: interval.String(), TLSServerName: s.cfg.Register.CheckTLSServerName,
			DeregisterCriticalServiceAfter: (10 * time.Duration(s.granted.Load())).String(),
		},
	}, false, nil
}

func host(hostport string) string {
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		return h
	}
	return strings.Trim(hostport, "[]")
}

// serviceName makes a name that DNS can carry of a scope, the way Patroni does.
func serviceName(scope string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(scope) {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-':
			b.WriteRune(r)
		case r == '.', r == '_', r == ' ':
			b.WriteByte('-')
		default:
			fmt.Fprintf(&b, "u%04d", r)
		}
	}
	name := b.String()
	return name[:min(len(name), 230)]
}
