package tlsconf_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pgregent/regent/internal/tlsconf"
)

// meet connects two configurations over a real socket; each end's error is that of
// its handshake or, in TLS 1.3's way, of its first read.
func meet(t *testing.T, client, server func(context.Context, net.Conn) (net.Conn, error)) (names [2]string, fromClient, fromServer error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := listener.Accept()
		if err != nil {
			fromServer = err
			return
		}
		defer conn.Close()
		names[1], fromServer = talk(ctx, conn, server)
	}()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	names[0], fromClient = talk(ctx, conn, client)
	conn.Close()
	<-done
	return names, fromClient, fromServer
}

func talk(ctx context.Context, conn net.Conn, wrap func(context.Context, net.Conn) (net.Conn, error)) (string, error) {
	deadline, _ := ctx.Deadline()
	conn.SetDeadline(deadline)
	c, err := wrap(ctx, conn)
	if err != nil {
		conn.Close()
		return "", err
	}
	if _, err := c.Write([]byte("x")); err != nil {
		return "", tlsconf.Explain(err)
	}
	if _, err := c.Read(make([]byte, 1)); err != nil {
		return "", tlsconf.Explain(err)
	}
	return tlsconf.Peer(c), nil
}

func as(cfg *tls.Config, f func(context.Context, net.Conn, *tls.Config) (*tls.Conn, error)) func(context.Context, net.Conn) (net.Conn, error) {
	return func(ctx context.Context, conn net.Conn) (net.Conn, error) {
		c, err := f(ctx, conn, cfg)
		if err != nil {
			return nil, err
		}
		return c, nil
	}
}

// plain is a peer that speaks some other protocol and waits for the end.
func plain(_ context.Context, conn net.Conn) (net.Conn, error) {
	if _, err := conn.Write([]byte("plain text\n")); err != nil {
		return nil, err
	}
	_, err := io.Copy(io.Discard, conn)
	return nil, errors.Join(err, errors.New("the connection ended"))
}

func mustSecret(t *testing.T, secret, node string) *tls.Config {
	t.Helper()
	cfg, err := tlsconf.FromSecret(secret, node)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestNodesOfOneSecretMeetUnderTheirNames(t *testing.T) {
	a, b := mustSecret(t, "s3cret", "pg01"), mustSecret(t, "s3cret", "pg_02")
	names, errC, errS := meet(t, as(a, tlsconf.Client), as(b, tlsconf.Server))
	if errC != nil || errS != nil {
		t.Fatalf("client: %v, server: %v", errC, errS)
	}
	if names != [2]string{"pg_02", "pg01"} {
		t.Errorf("peers' names: %v", names)
	}
}

func TestDifferentSecretsAreSaidOnBothSides(t *testing.T) {
	a, b := mustSecret(t, "one", "a"), mustSecret(t, "two", "b")
	_, errC, errS := meet(t, as(a, tlsconf.Client), as(b, tlsconf.Server))
	for side, err := range map[string]error{"client": errC, "server": errS} {
		if !errors.Is(err, tlsconf.ErrSecretDiffers) {
			t.Errorf("%s: %v, want %v", side, err, tlsconf.ErrSecretDiffers)
		}
	}
}

func TestPlainPeerIsRecognised(t *testing.T) {
	a := mustSecret(t, "one", "a")
	if _, errC, _ := meet(t, as(a, tlsconf.Client), plain); !errors.Is(errC, tlsconf.ErrPlain) {
		t.Errorf("TLS client, plain server: %v", errC)
	}
	if _, _, errS := meet(t, plain, as(a, tlsconf.Server)); !errors.Is(errS, tlsconf.ErrPlain) {
		t.Errorf("plain client, TLS server: %v", errS)
	}
}

func TestEmptySecretOrNameIsRefused(t *testing.T) {
	for _, in := range [][2]string{{"", "a"}, {"s", ""}} {
		if _, err := tlsconf.FromSecret(in[0], in[1]); err == nil {
			t.Errorf("FromSecret(%q, %q): no error", in[0], in[1])
		}
	}
}

// writeFiles stores a node's certificate of a secret as PEM; the authority's
// certificate is what a third party would be given.
func writeFiles(t *testing.T, secret, node string) tlsconf.Files {
	t.Helper()
	dir := t.TempDir()
	cfg := mustSecret(t, secret, node)
	key, err := x509.MarshalPKCS8PrivateKey(cfg.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	f := tlsconf.Files{Cert: filepath.Join(dir, "c"), Key: filepath.Join(dir, "k"), CA: filepath.Join(dir, "ca")}
	for path, block := range map[string]*pem.Block{
		f.Cert: {Type: "CERTIFICATE", Bytes: cfg.Certificates[0].Certificate[0]},
		f.Key:  {Type: "PRIVATE KEY", Bytes: key},
		f.CA:   {Type: "CERTIFICATE", Bytes: cfg.Certificates[0].Certificate[0]},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func TestFilesOfAnotherAuthorityAreUntrusted(t *testing.T) {
	ours, theirs := writeFiles(t, "one", "a"), writeFiles(t, "two", "b")
	a, err := tlsconf.FromFiles(ours)
	if err != nil {
		t.Fatal(err)
	}
	b, err := tlsconf.FromFiles(theirs)
	if err != nil {
		t.Fatal(err)
	}
	if _, errC, _ := meet(t, as(a, tlsconf.Client), as(b, tlsconf.Server)); !errors.Is(errC, tlsconf.ErrUntrusted) {
		t.Errorf("client: %v", errC)
	}
	if _, errC, errS := meet(t, as(a, tlsconf.Client), as(a, tlsconf.Server)); errC != nil || errS != nil {
		t.Errorf("one authority: %v, %v", errC, errS)
	}
	if _, err := tlsconf.FromFiles(tlsconf.Files{CA: ours.Key, Cert: ours.Cert, Key: ours.Key}); err == nil {
		t.Error("a key in place of the authority: no error")
	}
}

// A secret changes in three steps, and at each of them nodes before and after it meet.
func TestASecretIsChangedWithoutAMomentOfRefusal(t *testing.T) {
	node := func(secret string, accepted ...string) *tls.Config {
		t.Helper()
		cfg, err := tlsconf.FromSecret(secret, "n", accepted...)
		if err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	steps := []*tls.Config{node("old"), node("old", "new"), node("new", "old"), node("new")}
	for i := 1; i < len(steps); i++ {
		for _, pair := range [][2]*tls.Config{{steps[i-1], steps[i]}, {steps[i], steps[i-1]}} {
			if _, errC, errS := meet(t, as(pair[0], tlsconf.Client), as(pair[1], tlsconf.Server)); errC != nil || errS != nil {
				t.Errorf("step %d: %v, %v", i, errC, errS)
			}
		}
	}
	if _, errC, _ := meet(t, as(steps[3], tlsconf.Client), as(steps[0], tlsconf.Server)); !errors.Is(errC, tlsconf.ErrSecretDiffers) {
		t.Errorf("the old secret is still accepted: %v", errC)
	}
}

// Certificate, key and authority are replaced on disk, and the next connection uses them.
func TestFilesAreReplacedWithoutARestart(t *testing.T) {
	ours, theirs := writeFiles(t, "one", "a"), writeFiles(t, "two", "b")
	a, err := tlsconf.FromFiles(ours)
	if err != nil {
		t.Fatal(err)
	}
	b, err := tlsconf.FromFiles(theirs)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range [][2]string{{theirs.Cert, ours.Cert}, {theirs.Key, ours.Key}, {theirs.CA, ours.CA}} {
		content, err := os.ReadFile(f[0])
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(f[1], content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	names, errC, errS := meet(t, as(a, tlsconf.Client), as(b, tlsconf.Server))
	if errC != nil || errS != nil || names[1] != "b" {
		t.Errorf("with the new files: %v, %v, %v", names, errC, errS)
	}
}
