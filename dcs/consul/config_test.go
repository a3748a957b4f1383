package consul

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/pgregent/regent/dcs"
)

func TestEndpoint(t *testing.T) {
	for _, tc := range []struct {
		cfg  Config
		want string // or "": refused
	}{
		{Config{}, "http 127.0.0.1:8500"},
		{Config{Host: "c1"}, "http c1:8500"},
		{Config{Host: "c1:99"}, "http c1:99"},
		{Config{Host: "c1", Port: 99}, "http c1:99"},
		{Config{Host: "c1:98", Port: 99}, "http c1:98"},
		{Config{Host: "c1", Scheme: "https"}, "https c1:8500"},
		{Config{Host: "::1"}, "http [::1]:8500"},
		{Config{Host: "[::1]:99"}, "http [::1]:99"},
		{Config{URL: "https://c1:99"}, "https c1:99"},
		{Config{URL: "https://c1/", Host: "c2", Port: 1, Scheme: "http"}, "https c1:8500"},
		{Config{URL: "https://c1/path"}, ""},
		{Config{URL: "c1:99"}, ""},
		{Config{Scheme: "ftp"}, ""},
		{Config{Host: "c1:http"}, ""},
		{Config{Host: "c1", Port: 65536}, ""},
	} {
		scheme, address, err := tc.cfg.endpoint()
		if got := strings.TrimSpace(scheme + " " + address); got != tc.want || (err == nil) != (tc.want != "") {
			t.Errorf("%+v: %q, %v; want %q", tc.cfg, got, err, tc.want)
		}
		if err != nil && !errors.Is(err, dcs.ErrBroken) {
			t.Errorf("%+v: %v", tc.cfg, err)
		}
	}
}

func TestUnusableSettings(t *testing.T) {
	for name, cfg := range map[string]Config{
		"base":        {Base: "/"},
		"consistency": {Base: based("main"), Consistency: "strong"},
		"interval":    {Base: based("main"), Register: Service{CheckInterval: -1}},
	} {
		if _, err := Open(context.Background(), cfg); !errors.Is(err, dcs.ErrBroken) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestServiceName(t *testing.T) {
	for scope, want := range map[string]string{
		"main": "main", "My_Cluster.eu west": "my-cluster-eu-west", "a/b": "au0047b", strings.Repeat("x", 300): strings.Repeat("x", 230),
	} {
		if got := serviceName(scope); got != want {
			t.Errorf("%s: %s", scope, got)
		}
	}
}

// What a request that failed may have done.
func TestClasses(t *testing.T) {
	text := func(code int, text string) error { return &answerError{code, text} }
	for _, tc := range []struct {
		err          error
		write, other error // class for one that writes, and one that reads
	}{
		{text(500, "No cluster leader"), dcs.ErrUnavailable, dcs.ErrUnavailable},
		{text(500, "rpc error making call: node is not the leader"), dcs.ErrUnavailable, dcs.ErrUnavailable},
		{text(500, "raft apply failed: leadership lost while committing log"), dcs.ErrUnknown, dcs.ErrUnavailable},
		{text(500, "rpc error making call: EOF"), dcs.ErrUnknown, dcs.ErrUnavailable},
		{text(429, "slow down"), dcs.ErrUnavailable, dcs.ErrUnavailable},
		{text(403, "Permission denied"), dcs.ErrBroken, dcs.ErrBroken},
		{text(400, "Client sent an HTTP request to an HTTPS server."), dcs.ErrBroken, dcs.ErrBroken},
		{text(500, "rpc error making call: Permission denied"), dcs.ErrBroken, dcs.ErrBroken},
		{&callError{left: false, err: &net.OpError{Op: "dial", Err: errors.New("connection refused")}}, dcs.ErrUnavailable, dcs.ErrUnavailable},
		{&callError{left: true, err: io.EOF}, dcs.ErrUnknown, dcs.ErrUnavailable},
		{&callError{left: true, err: context.DeadlineExceeded}, dcs.ErrUnknown, dcs.ErrUnavailable},
		{io.ErrUnexpectedEOF, dcs.ErrUnknown, dcs.ErrUnavailable}, // within an answer
	} {
		if got := classOf(writes, tc.err); got != tc.write {
			t.Errorf("a write, %v: %v", tc.err, got)
		}
		if got := classOf(reads, tc.err); got != tc.other {
			t.Errorf("a read, %v: %v", tc.err, got)
		}
	}
}

// A server that takes connections and says nothing costs no more than the caller allows, and
// than the settings do.
func TestSilence(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // nobody accepts; the kernel does
	for name, limits := range map[string]struct{ caller, settings time.Duration }{
		"the caller's": {200 * time.Millisecond, time.Hour}, "the settings'": {time.Hour, 200 * time.Millisecond},
	} {
		s := opened(t, Config{Host: l.Addr().String(), Timeout: limits.settings})
		ctx, cancel := context.WithTimeout(context.Background(), limits.caller)
		defer cancel()
		began := time.Now()
		_, errView := s.View(ctx, dcs.Linearizable)
		_, errGrant := s.Grant(ctx, "", time.Minute)
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%s limit of 200 ms took %v", name, took)
		}
		if !errors.Is(errView, dcs.ErrUnavailable) || !(errors.Is(errGrant, dcs.ErrUnknown) || ctx.Err() != nil) {
			t.Errorf("%s limit: view %v; grant %v", name, errView, errGrant)
		}
	}
}
