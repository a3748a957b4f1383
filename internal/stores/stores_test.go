package stores

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
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/dcs/etcd3/etcdtest"
	"github.com/pgregent/regent/internal/config"
)

// authority issues certificates into a folder.
type authority struct {
	*testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{T: t, dir: t.TempDir()}
	a.cert, a.key = a.issue(name, time.Hour, nil)
	return a
}

// issue writes NAME.crt and NAME.key; without an issuer the certificate is its own.
func (a *authority) issue(name string, valid time.Duration, by *authority) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.Fatal(err)
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(valid),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, BasicConstraintsValid: true, IsCA: by == nil,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	parent, signer := cert, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, parent, &key.PublicKey, signer)
	if err != nil {
		a.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.Fatal(err)
	}
	a.write(name+".crt", "CERTIFICATE", der)
	a.write(name+".key", "PRIVATE KEY", secret)
	return cert, key
}

func (a *authority) write(name, kind string, der []byte) {
	a.Helper()
	if err := os.WriteFile(a.path(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.Fatal(err)
	}
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

// load reads a configuration of the etcd3 section's lines.
func load(t *testing.T, lines ...string) *config.Config {
	t.Helper()
	file := filepath.Join(t.TempDir(), "patroni.yml")
	text := "scope: demo\nname: n1\netcd3:\n  " + strings.Join(lines, "\n  ") + "\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// try opens the store that the lines describe, and reads it once.
func try(t *testing.T, lines ...string) error {
	t.Helper()
	s, err := Open(t.Context(), load(t, lines...), nil)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	_, err = s.View(ctx, dcs.Linearizable)
	return errors.Join(err, s.Close())
}

// TLS by the files that the section names: what is wrong with them is said.
func TestEtcdOverTLS(t *testing.T) {
	if testing.Short() {
		t.Skip("starts an etcd server")
	}
	ours, strange := newAuthority(t, "ca"), newAuthority(t, "ca")
	ours.issue("server", time.Hour, ours)
	ours.issue("client", time.Hour, ours)
	ours.issue("expired", -time.Hour, ours)
	strange.issue("client", time.Hour, strange)
	c := etcdtest.Start(t, etcdtest.Options{Version: etcdtest.V34, TLS: &etcdtest.Files{
		Cert: ours.path("server.crt"), Key: ours.path("server.key"), CA: ours.path("ca.crt"),
	}})
	host := "host: " + c.Addr(0)
	files := func(ca, cert, key string) []string {
		return []string{host, "protocol: https", "cacert: " + ca, "cert: " + cert, "key: " + key}
	}
	if err := try(t, files(ours.path("ca.crt"), ours.path("client.crt"), ours.path("client.key"))...); err != nil {
		t.Errorf("with the right files: %v", err)
	}
	for what, tc := range map[string]struct {
		lines []string
		class error
		says  string
	}{
		"an expired certificate": {files(ours.path("ca.crt"), ours.path("expired.crt"), ours.path("expired.key")), dcs.ErrUnavailable, "renew it"},
		"another authority":      {files(strange.path("ca.crt"), ours.path("client.crt"), ours.path("client.key")), dcs.ErrUnavailable, "etcd3.cacert must name the authority"},
		"a stranger":             {files(ours.path("ca.crt"), strange.path("client.crt"), strange.path("client.key")), dcs.ErrUnavailable, "set etcd3.cert and etcd3.key"},
		"no certificate":         {[]string{host, "protocol: https", "cacert: " + ours.path("ca.crt")}, dcs.ErrUnavailable, "set etcd3.cert and etcd3.key"},
		"plain text":             {[]string{host}, dcs.ErrUnavailable, "set etcd3.protocol to https"},
		"no such file":           {files(ours.path("none.crt"), "", ""), dcs.ErrBroken, "none.crt"},
		"a key that isn't one":   {files(ours.path("ca.crt"), ours.path("client.crt"), ours.path("client.crt")), dcs.ErrBroken, "key"},
	} {
		if err := try(t, tc.lines...); !errors.Is(err, tc.class) || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// Keys that openssl encrypted, in its forms.
func TestEncryptedKeys(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("no openssl here, which writes the keys")
	}
	a := newAuthority(t, "ca")
	for form, args := range map[string][]string{
		"default":     {"pkcs8", "-topk8"},
		"aes128-sha1": {"pkcs8", "-topk8", "-v2", "aes-128-cbc", "-v2prf", "hmacWithSHA1"},
		"aes192-512":  {"pkcs8", "-topk8", "-v2", "aes-192-cbc", "-v2prf", "hmacWithSHA512"},
		"traditional": {"ec", "-aes256"},
	} {
		out := a.path(form + ".key")
		args = append(args, "-in", a.path("ca.key"), "-out", out, "-passout", "pass:open sesame")
		if text, err := exec.Command(openssl, args...).CombinedOutput(); err != nil {
			t.Fatalf("openssl %v: %v: %s", args, err, text)
		}
		f := clientFiles{cert: a.path("ca.crt"), key: out, password: "open sesame"}
		cert, err := f.certificate()
		if err != nil {
			t.Errorf("%s: %v", form, err)
		} else if key, ok := cert.PrivateKey.(*ecdsa.PrivateKey); !ok || !key.Equal(a.key) {
			t.Errorf("%s: another key came out", form)
		}
		for _, wrong := range []string{"", "guess"} {
			f.password = wrong
			if _, err := f.certificate(); err == nil {
				t.Errorf("%s: opened with password %q", form, wrong)
			}
		}
	}
	if _, err := decryptPKCS8([]byte{0x30, 0x03, 1, 2, 3}, "x"); err == nil {
		t.Error("rubbish was decrypted")
	}
}

func TestSRVRecords(t *testing.T) {
	var asked []string
	lookup := func(_ context.Context, service, proto, name string) (string, []*net.SRV, error) {
		asked = append(asked, fmt.Sprintf("_%s._%s.%s", service, proto, name))
		if service != "etcd-client-dev" {
			return "", nil, errors.New("no such host")
		}
		return "", []*net.SRV{{Target: "a.example.", Port: 2379}, {Target: "b.example.", Port: 4001}}, nil
	}
	got, err := lookupSRV(t.Context(), lookup, "example", "dev")
	if err != nil || !slices.Equal(got, []string{"http://a.example:2379", "http://b.example:4001"}) {
		t.Errorf("%v, %v", got, err)
	}
	if !slices.Equal(asked, []string{"_etcd-client-ssl-dev._tcp.example", "_etcd-client-dev._tcp.example"}) {
		t.Errorf("asked for %v", asked)
	}
	if _, err := lookupSRV(t.Context(), lookup, "example", ""); !errors.Is(err, dcs.ErrUnavailable) {
		t.Errorf("a domain without records: %v", err)
	}
}

// A reload takes secrets; anything else that it changes about the store is told apart.
func TestSameStore(t *testing.T) {
	base := load(t, "hosts: 'a:1,b:2'", "username: u", "password: p")
	for line, same := range map[string]bool{"password: q": true, "username: v": true, "hosts: [a:1]": false, "protocol: https": false} {
		next := load(t, "hosts: 'a:1,b:2'", line)
		if strings.HasPrefix(line, "hosts") {
			next = load(t, line)
		}
		if Same(base, next) != same {
			t.Errorf("%s: same is %v", line, !same)
		}
	}
}
