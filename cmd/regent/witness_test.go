package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/dcs/embedded"
	"github.com/pgregent/regent/events"
)

// freePorts reserves n ports of this host for a moment.
func freePorts(t *testing.T, n int) []string {
	t.Helper()
	out := make([]string, n)
	for i := range out {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		out[i] = l.Addr().String()
	}
	return out
}

// witnessFile writes the configuration of one of the witnesses.
func witnessFile(t *testing.T, dir string, addrs []string, i int, more string) string {
	t.Helper()
	path := filepath.Join(dir, fmt.Sprintf("w%d.yml", i))
	text := fmt.Sprintf("scope: demo\nname: w%d\nlog: {level: ERROR}\nraft:\n  self_addr: %s\n  partner_addrs: ['%s']\n  data_dir: %s\n%s",
		i, addrs[i], strings.Join(addrs, "', '"), filepath.Join(dir, fmt.Sprint("raft", i)), more)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Witnesses are voters: three of them alone are a store. Their secret changes by SIGHUP.
func TestWitnessesVoteAndReload(t *testing.T) {
	dir, addrs := t.TempDir(), freePorts(t, 3)
	signals := make([]chan os.Signal, 3)
	ended := make(chan error, 3)
	for i := range 3 {
		signals[i] = make(chan os.Signal, 1)
		path := witnessFile(t, dir, addrs, i, "  password: old\n")
		go func() { ended <- runWitness(context.Background(), path, nil, 1000, signals[i]) }()
	}
	defer func() {
		for i := range 3 {
			signals[i] <- syscall.SIGTERM
		}
		for range 3 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	// use writes through one node, as soon as it lets us.
	use := func(i int, s embedded.Security) {
		t.Helper()
		secured, err := s.TLS("operator")
		if err != nil {
			t.Fatal(err)
		}
		var client *embedded.Client
		for {
			client, err = embedded.Dial(ctx, embedded.ClientConfig{Addrs: addrs[i : i+1], Cluster: dcs.BasePath("/service", "demo"), TLS: secured})
			if err == nil {
				break
			}
			wait := time.NewTimer(20 * time.Millisecond)
			select {
			case <-wait.C:
			case <-ctx.Done():
				t.Fatalf("witness %d: %v", i, err)
			}
		}
		defer client.Close()
		// On a busy machine leaders come and go; unguarded, twice is as good as once.
		for err = dcs.ErrUnknown; dcs.ClassOf(err) == events.Unknown && ctx.Err() == nil; {
			_, err = client.Commit(ctx, dcs.Txn{Writes: []dcs.Write{dcs.Put("k", nil)}})
		}
		if err != nil {
			t.Fatalf("witness %d: %v", i, err)
		}
	}
	use(0, embedded.Security{Secret: "old"})
	for i := range 3 {
		witnessFile(t, dir, addrs, i, "  password: old\nregent: {raft: {accept_password: new}}\n")
		signals[i] <- syscall.SIGHUP
		use(i, embedded.Security{Secret: "new", Accept: "old"}) // it accepts the new one
	}
	for i := range 3 {
		witnessFile(t, dir, addrs, i, "  password: new\nregent: {raft: {accept_password: old}}\n")
		signals[i] <- syscall.SIGHUP
		use(i, embedded.Security{Secret: "new"}) // it uses the new one
	}
}

func TestAWitnessIsToldWhatItLacks(t *testing.T) {
	dir, addrs := t.TempDir(), freePorts(t, 1)
	good := witnessFile(t, dir, addrs, 0, "")
	if err := runWitness(t.Context(), good, nil, 0, nil); err == nil || !strings.Contains(err.Error(), "must not run as root") {
		t.Errorf("as root: %v", err)
	}
	for text, want := range map[string]string{
		"scope: demo\nname: w\n":                                "raft",
		"name: w\nraft: {self_addr: '10.0.0.1:1'}\n":            "scope is not defined",
		"scope: demo\nraft: {self_addr: '10.0.0.1:1'}\n":        "name is not defined",
		"scope: demo\nname: w\nraft: {self_addr: '10.0.0.1:1'}": "raft.data_dir is not defined",
	} {
		path := filepath.Join(dir, "bad.yml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := runWitness(t.Context(), path, nil, 1000, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
