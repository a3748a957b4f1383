package ctl

import (
	"context"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgregent/regent/internal/config"
)

func TestCallerAuthenticatesAndVerifies(t *testing.T) {
	member := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		if user != "admin" || password != "geheim" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if r.URL.Path == "/moved" {
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
			return
		}
		_, _ = w.Write([]byte(r.Method + " " + r.URL.Path))
	}))
	member.Config.ErrorLog = log.New(io.Discard, "", 0) // one caller doesn't trust it, and it says so
	member.StartTLS()
	defer member.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: member.Certificate().Raw})
	if err := os.WriteFile(ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	auth := config.BasicAuth{Username: "admin", Password: config.NewSecret("geheim")}
	for name, c := range map[string]struct {
		ctl         config.Ctl
		path        string
		status      int
		reply       string
		unreachable bool
	}{
		"trusted":       {ctl: config.Ctl{Auth: auth, CACert: ca}, path: "/switchover", status: 200, reply: "POST /switchover"},
		"insecure":      {ctl: config.Ctl{Auth: auth, Insecure: true}, path: "/switchover", status: 200, reply: "POST /switchover"},
		"no password":   {ctl: config.Ctl{CACert: ca}, path: "/switchover", status: 401},
		"not trusted":   {ctl: config.Ctl{Auth: auth}, path: "/switchover", unreachable: true},
		"no redirect":   {ctl: config.Ctl{Auth: auth, CACert: ca}, path: "/moved", status: 302},
		"wrong address": {ctl: config.Ctl{Auth: auth, CACert: ca}, path: "/a b\x7f", unreachable: true},
	} {
		t.Run(name, func(t *testing.T) {
			caller, err := NewCaller(c.ctl)
			if err != nil {
				t.Fatal(err)
			}
			status, reply, err := caller.Call(t.Context(), http.MethodPost, member.URL+c.path, []byte("{}"))
			if errors.Is(err, ErrUnreachable) != c.unreachable || (err != nil) != c.unreachable {
				t.Fatalf("error %v", err)
			}
			if status != c.status || c.reply != "" && string(reply) != c.reply {
				t.Errorf("%d %s", status, reply)
			}
		})
	}
}

// What matters is whether the member can have seen the request: only if it can't may the
// tool ask for the same by other means.
func TestCallerTellsWhatNeverLeftFromWhatMayHaveArrived(t *testing.T) {
	hung := make(chan struct{})
	member := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/dropped":
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				_ = conn.Close()
			}
		case "/hung":
			select {
			case <-hung:
			case <-r.Context().Done():
			}
		}
	}))
	defer member.Close()
	defer close(hung)
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused := "http://" + nobody.Addr().String()
	if err := nobody.Close(); err != nil {
		t.Fatal(err)
	}
	caller, err := NewCaller(config.Ctl{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		url         string
		unreachable bool
	}{
		{refused + "/switchover", true},
		{"http://does-not-exist.invalid/switchover", true},
		{member.URL + "/dropped", false},
		{member.URL + "/hung", false},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		_, _, err := caller.Call(ctx, http.MethodPost, c.url, []byte("{}"))
		cancel()
		if err == nil || errors.Is(err, ErrUnreachable) != c.unreachable {
			t.Errorf("%s: %v, unreachable should be %v", c.url, err, c.unreachable)
		}
	}
}

func TestCallerRefusesUnusableSettings(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for want, c := range map[string]config.Ctl{
		"read ctl.cacert":                  {CACert: filepath.Join(dir, "missing")},
		"no certificate in it":             {CACert: empty},
		"read ctl.certfile":                {CertFile: empty},
		"encrypted keys can't be read yet": {CertFile: empty, KeyFilePassword: config.NewSecret("x")},
	} {
		if _, err := NewCaller(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestEndpointIsBesideThePublishedAddress(t *testing.T) {
	for api, want := range map[string]string{
		"http://10.0.0.1:8008/patroni": "http://10.0.0.1:8008/switchover",
		"https://[fd00::1]:8008/":      "https://[fd00::1]:8008/switchover",
		"http://lb/some/where/patroni": "http://lb/switchover",
	} {
		if got, err := endpoint(api, "switchover"); got != want || err != nil {
			t.Errorf("%s: %s, %v", api, got, err)
		}
	}
	for _, api := range []string{"", "10.0.0.1:8008", "://", "/patroni"} {
		if got, err := endpoint(api, "switchover"); !errors.Is(err, ErrUnreachable) {
			t.Errorf("%q: %s, %v", api, got, err)
		}
	}
}
