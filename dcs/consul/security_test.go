package consul

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/dcs/consul/consultest"
)

// A token for one cluster: the other one is closed to it, which isn't the same as empty.
func TestTokens(t *testing.T) {
	t.Parallel()
	const root = "11111111-1111-1111-1111-111111111111"
	server := consultest.Start(t, "c0", map[string]any{"acl": map[string]any{
		"enabled": true, "default_policy": "deny", "tokens": map[string]any{"initial_management": root, "agent": root},
	}})
	admin := opened(t, Config{Host: server.HTTP, Token: root})
	usable(t, admin)
	if _, _, err := admin.client.ACL().PolicyCreate(&api.ACLPolicy{Name: "mine", Rules: `
		key_prefix "service/mine/" { policy = "write" }
		key_prefix "service/seen/" { policy = "read" }
		session_prefix "" { policy = "write" }`}, admin.change(limited(t))); err != nil {
		t.Fatal(err)
	}
	token, _, err := admin.client.ACL().TokenCreate(
		&api.ACLToken{Policies: []*api.ACLTokenPolicyLink{{Name: "mine"}}}, admin.change(limited(t)))
	if err != nil {
		t.Fatal(err)
	}
	mine := opened(t, Config{Host: server.HTTP, Token: token.SecretID, Base: based("mine")})
	mustCommit(t, mine, leased(dcs.KeyLeader, "pg01", mustGrant(t, mine, time.Minute)))
	if v := mustView(t, mine); len(v.KVs) != 1 {
		t.Errorf("a view of what the token may see: %+v", v)
	}
	const policy, another = `consul.token needs a policy with key_prefix`, "doesn't know consul.token: correct it"
	for name, tc := range map[string]struct {
		Config
		todo string
	}{
		"another cluster": {Config{Token: token.SecretID, Base: based("other")}, policy},
		"read only":       {Config{Token: token.SecretID, Base: based("seen")}, policy},
		"unknown token":   {Config{Token: "22222222-2222-2222-2222-222222222222", Base: based("mine")}, another},
		"no token":        {Config{Base: based("mine")}, policy},
	} {
		tc.Host = server.HTTP
		denied(t, name, opened(t, tc.Config), tc.todo)
	}

	// What the operator puts right counts without a restart.
	late := opened(t, Config{Host: server.HTTP, Base: based("mine")})
	late.UseToken(token.SecretID)
	mustView(t, late)
}

// denied expects all that counts to be ErrBroken, and to say why, and what to do.
func denied(t *testing.T, name string, s *Store, todo string) {
	t.Helper()
	_, errCommit := s.Commit(limited(t), dcs.Txn{Writes: []dcs.Write{dcs.Put("k", nil)}})
	_, errView := s.View(limited(t), dcs.Linearizable)
	for op, err := range map[string]error{"commit": errCommit, "view": errView} {
		if !errors.Is(err, dcs.ErrBroken) || !(strings.Contains(err.Error(), "ermission denied") || strings.Contains(err.Error(), "ACL")) {
			t.Errorf("%s, %s: %v", name, op, err)
		}
		if err != nil && !strings.Contains(err.Error(), todo) {
			t.Errorf("%s, %s: it doesn't say what to do: %v", name, op, err)
		}
	}
}

// Keys that a token may not see are no empty cluster, for a watch either.
func TestFilteredKeys(t *testing.T) {
	t.Parallel()
	const root = "11111111-1111-1111-1111-111111111111"
	server := consultest.Start(t, "c0", map[string]any{"acl": map[string]any{
		"enabled": true, "default_policy": "deny", "tokens": map[string]any{"initial_management": root, "agent": root},
	}})
	admin := opened(t, Config{Host: server.HTTP, Token: root})
	usable(t, admin)
	mustCommit(t, admin, leased(dcs.KeyLeader, "pg01", mustGrant(t, admin, time.Minute)))
	if _, _, err := admin.client.ACL().PolicyCreate(&api.ACLPolicy{Name: "half", Rules: `
		key_prefix "service/main/members" { policy = "write" }`}, admin.change(limited(t))); err != nil {
		t.Fatal(err)
	}
	token, _, err := admin.client.ACL().TokenCreate(
		&api.ACLToken{Policies: []*api.ACLTokenPolicyLink{{Name: "half"}}}, admin.change(limited(t)))
	if err != nil {
		t.Fatal(err)
	}
	s := opened(t, Config{Host: server.HTTP, Token: token.SecretID})
	if v, err := s.View(limited(t), dcs.Local); !errors.Is(err, dcs.ErrBroken) || !strings.Contains(err.Error(), "consul.token needs a policy") {
		t.Errorf("%+v, %v", v, err)
	}
	w, err := s.Watch(limited(t))
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		for range 20 { // the watch asks meanwhile
			_, _ = s.View(context.Background(), dcs.Local)
		}
	}()
	select {
	case v, open := <-w:
		t.Errorf("a watch shows %+v, %v", v, open)
	case <-asked:
	}
	<-asked
}

// Encrypted, with certificates of both sides.
func TestTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca := newAuthority(t, filepath.Join(dir, "ca.pem"))
	newAuthority(t, filepath.Join(dir, "stranger.pem"))
	ca.issue(t, filepath.Join(dir, "server.pem"), time.Hour)
	ca.issue(t, filepath.Join(dir, "client.pem"), time.Hour)
	ca.issue(t, filepath.Join(dir, "expired.pem"), -time.Minute)
	https := consultest.FreePort()
	server := consultest.Start(t, "c0", map[string]any{
		"ports": map[string]any{
			"http": -1, "https": https, "dns": -1, "grpc": -1, "grpc_tls": -1, "serf_wan": -1,
			"serf_lan": consultest.FreePort(), "server": consultest.FreePort(),
		},
		"tls": map[string]any{"https": map[string]any{
			"ca_file": filepath.Join(dir, "ca.pem"), "cert_file": filepath.Join(dir, "server.pem"),
			"key_file": filepath.Join(dir, "server.pem"), "verify_incoming": true,
		}},
	})
	file := func(name string) string { return filepath.Join(dir, name) }
	good := Config{Host: server.HTTP, Scheme: "https", CACert: file("ca.pem"), Cert: file("client.pem")}
	usable(t, opened(t, good))

	careless := good
	careless.CACert, careless.NoVerify = "", true
	usable(t, opened(t, careless))

	for name, tc := range map[string]struct {
		change func(*Config)
		todo   string
	}{
		"an authority that isn't the server's": {func(c *Config) { c.CACert = file("stranger.pem") }, "consul.cacert must name the authority"},
		"no authority":                         {func(c *Config) { c.CACert = "" }, "consul.cacert must name the authority"},
		"no certificate":                       {func(c *Config) { c.Cert = "" }, "set consul.cert and consul.key"},
		"an expired certificate":               {func(c *Config) { c.Cert = file("expired.pem") }, "renew"},
		"plain text":                           {func(c *Config) { c.Scheme = "http" }, "set consul.scheme to https"},
	} {
		cfg := good
		tc.change(&cfg)
		s := opened(t, cfg)
		_, errView := s.View(limited(t), dcs.Linearizable)
		_, errGrant := s.Grant(limited(t), "", time.Minute)
		if !errors.Is(errView, dcs.ErrBroken) || !errors.Is(errGrant, dcs.ErrBroken) {
			t.Errorf("%s: view %v; grant %v", name, errView, errGrant)
		}
		if text := fmt.Sprint(errView, errGrant); strings.Count(text, tc.todo) != 2 {
			t.Errorf("%s: it doesn't say what to do: view %v; grant %v", name, errView, errGrant)
		}
	}
	for name, cfg := range map[string]Config{
		"a missing authority":   {CACert: file("nobody.pem")},
		"a missing certificate": {Cert: file("nobody.pem")},
		"no certificate at all": {CACert: filepath.Join(server.Folder, "config.json")},
		"a key alone":           {Key: file("client.pem")},
	} {
		cfg.Base, cfg.Scheme = based("main"), "https"
		if _, err := Open(limited(t), cfg); !errors.Is(err, dcs.ErrBroken) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// authority issues certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, file string) authority {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority " + filepath.Base(file)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	if template, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	write(t, file, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	return authority{template, key}
}

// issue writes a certificate with its key, valid for the given time from now.
func (a authority) issue(t *testing.T, file string, valid time.Duration) {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: filepath.Base(file)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(valid),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, file, &pem.Block{Type: "CERTIFICATE", Bytes: der}, &pem.Block{Type: "EC PRIVATE KEY", Bytes: secret})
}

func write(t *testing.T, file string, blocks ...*pem.Block) {
	t.Helper()
	var text []byte
	for _, b := range blocks {
		text = append(text, pem.EncodeToMemory(b)...)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
}
