package api

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgregent/regent/internal/config"
)

func basicAuth() config.BasicAuth {
	return config.BasicAuth{Username: "admin", Password: config.NewSecret("s3cret: x")}
}

func basic(s string) string {
	return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(s))
}

// unsafeRequests are all that change something.
func unsafeRequests() []string {
	return []string{
		"PATCH /config", "PUT /config", "POST /switchover", "POST /failover", "DELETE /switchover",
		"POST /restart", "DELETE /restart", "POST /reload", "POST /failsafe",
	}
}

func TestCredentialsProtectWhatChangesSomething(t *testing.T) {
	w := newWorld(t)
	w.opt.Settings.Auth = basicAuth()
	w.run()
	threeMembers(w)
	for _, r := range unsafeRequests() {
		method, path, _ := strings.Cut(r, " ")
		for header, want := range map[string]string{
			"X: y":                          "no auth header received",
			"Authorization: Bearer x":       "not authenticated",
			basic("admin:wrong"):            "not authenticated",
			basic("admin:s3cret: x") + "x":  "not authenticated",
			"Authorization: basic YWRtaW4=": "not authenticated",
			strings.Replace(basic("admin:s3cret: x"), "Basic ", "", 1): "not authenticated",
		} {
			raw := method + " " + path + "/ HTTP/1.1\r\n" + header + "\r\nContent-Length: 2\r\n\r\n{}"
			answer := w.say(raw)
			if !strings.HasPrefix(answer, "HTTP/1.0 401 Unauthorized\r\nServer: ") || !strings.HasSuffix(answer, "\r\n\r\n"+want) ||
				!strings.Contains(answer, "\r\nContent-Type: text/html\r\nWWW-Authenticate: Basic realm=\"Patroni\"\r\n\r\n") {
				t.Errorf("%s with %q: %q", r, header, answer)
			}
		}
		if status, text := w.send(method, path, "{}", basic("admin:s3cret: x")); strings.HasPrefix(status, "401") {
			t.Errorf("%s with the right credentials: %s %s", r, status, text)
		}
	}
	for _, path := range []string{"/patroni", "/cluster", "/history", "/config", "/primary", "/liveness"} {
		if status, _ := w.send("GET", path, ""); status != "200 OK" {
			t.Errorf("GET %s: %s", path, status)
		}
	}
	// What doesn't exist is said before who asks.
	if status, _ := w.send("POST", "/nosuch", "{}"); status != "501 Unsupported method ('POST')" {
		t.Errorf("POST /nosuch: %s", status)
	}
}

func TestAllowlist(t *testing.T) {
	for name, c := range map[string]struct {
		list    []string
		members bool
		api     string
		reload  string // status
	}{
		"other":            {[]string{"10.0.0.0/8"}, false, "", "403 Forbidden"},
		"address":          {[]string{"10.0.0.1", "127.0.0.1"}, false, "", "202 Accepted"},
		"network":          {[]string{"127.0.0.99/8"}, false, "", "202 Accepted"},
		"name":             {[]string{"localhost"}, false, "", "202 Accepted"},
		"member":           {nil, true, "http://127.0.0.1:8008/patroni", "202 Accepted"},
		"other members":    {nil, true, "http://10.0.0.9:8008/patroni", "403 Forbidden"},
		"unreadable":       {nil, true, "%zz", "403 Forbidden"},
		"list and members": {[]string{"10.0.0.1"}, true, "http://localhost:8008/", "202 Accepted"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.opt.Settings.Allowlist, w.opt.Settings.AllowMembers = c.list, c.members
			w.run()
			w.put(`members/pg01 {"api_url":"` + c.api + `"}`)
			if status, text := w.send("POST", "/reload", ""); status != c.reload || (status[0] == '4' && text != "Access is denied") {
				t.Errorf("%s %s, want %s", status, text, c.reload)
			}
			if status, _ := w.send("GET", "/primary", ""); status != "200 OK" {
				t.Errorf("GET: %s", status)
			}
			status, _ := w.send("POST", "/failsafe", "{}")
			if denied := status == "403 Forbidden"; denied != (c.members || c.reload[0] == '4') {
				t.Errorf("POST /failsafe: %s", status)
			}
		})
	}
	w := newWorld(t)
	w.opt.Settings.Allowlist = []string{"no such host.invalid"}
	if _, err := New(w.opt); err == nil {
		t.Error("a name that can't be resolved is no error")
	}
}

// authority issues certificates for the tests.
type authority struct {
	t    *testing.T
	dir  string
	key  ed25519.PrivateKey
	cert *x509.Certificate
	next int64
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, dir: t.TempDir(), next: 2}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.key = private
	a.write("ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return a
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

func (a *authority) write(name string, content []byte) {
	if err := os.WriteFile(a.path(name), content, 0o600); err != nil {
		a.t.Fatal(err)
	}
}

// issue writes a certificate and its key into one file.
func (a *authority) issue(name string) {
	a.t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(a.next), Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	a.next++
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, public, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(name, append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...))
}

// tlsSay is say over TLS; client names a certificate file, if any.
func (w *world) tlsSay(a *authority, client, raw string) (string, *big.Int, error) {
	cfg := &tls.Config{RootCAs: x509.NewCertPool()}
	cfg.RootCAs.AddCert(a.cert)
	if client != "" {
		cert, err := tls.LoadX509KeyPair(client, client)
		if err != nil {
			w.t.Fatal(err)
		}
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	}
	conn, err := tls.Dial("tcp", w.server.Addr().String(), cfg)
	if err != nil {
		return "", nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		w.t.Fatal(err)
	}
	if _, err := io.WriteString(conn, raw); err != nil {
		return "", nil, err
	}
	b, err := io.ReadAll(conn)
	return string(b), conn.ConnectionState().PeerCertificates[0].SerialNumber, err
}

func TestCertificateIsReadAgainOnReload(t *testing.T) {
	a := newAuthority(t)
	a.issue("server")
	w := newWorld(t)
	w.opt.Settings.CertFile = a.path("server")
	w.run()
	serial := func() int64 {
		t.Helper()
		answer, n, err := w.tlsSay(a, "", "GET /primary HTTP/1.1\r\n\r\n")
		if err != nil || !strings.HasPrefix(answer, "HTTP/1.0 200 OK\r\n") {
			t.Fatalf("%q, %v", answer, err)
		}
		return n.Int64()
	}
	first := serial()
	a.issue("server")
	if got := serial(); got != first {
		t.Errorf("serial %d before the reload", got)
	}
	if err := w.server.Reload(w.opt.Settings); err != nil {
		t.Fatal(err)
	}
	if got := serial(); got != first+1 {
		t.Errorf("serial %d after the reload, want %d", got, first+1)
	}
	a.write("server", []byte("no certificate"))
	if err := w.server.Reload(w.opt.Settings); err == nil {
		t.Error("a broken certificate is no error")
	}
	if got := serial(); got != first+1 {
		t.Errorf("serial %d after a failed reload", got)
	}
	// Plain text to a TLS server ends without an answer in plain text.
	if answer := w.sayAnyway("GET /primary HTTP/1.1\r\n\r\n"); strings.Contains(answer, "200 OK") {
		t.Errorf("plain text was answered: %q", answer)
	}
}

// recorder keeps what a connection brought.
type recorder struct {
	net.Conn
	got []byte
}

func (r *recorder) Read(b []byte) (int, error) {
	n, err := r.Conn.Read(b)
	r.got = append(r.got, b[:n]...)
	return n, err
}

// TestTLSAnswersEndWithAWord: without Content-Length the end of the connection ends the
// answer, and OpenSSL refuses one that comes without a closing alert.
func TestTLSAnswersEndWithAWord(t *testing.T) {
	a := newAuthority(t)
	a.issue("server")
	w := newWorld(t)
	w.opt.Settings.CertFile = a.path("server")
	w.run()
	plain, err := net.Dial("tcp", w.server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	r := &recorder{Conn: plain}
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	// In TLS 1.2 the kinds of records can be read from outside.
	conn := tls.Client(r, &tls.Config{RootCAs: roots, ServerName: "127.0.0.1", MaxVersion: tls.VersionTLS12})
	if got := converse(t, conn, "GET /primary HTTP/1.1\r\n\r\n"); !strings.HasSuffix(got, "}") {
		t.Errorf("%q", got)
	}
	last := byte(0)
	for b := r.got; len(b) >= 5; {
		last = b[0]
		b = b[min(len(b), 5+int(b[3])<<8+int(b[4])):]
	}
	if last != 21 {
		t.Errorf("the last record is of type %d, want 21 (alert)", last)
	}
}

// sayAnyway is say where the server may reset the connection.
func (w *world) sayAnyway(raw string) string {
	conn, err := net.Dial("tcp", w.server.Addr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		w.t.Fatal(err)
	}
	if _, err := io.WriteString(conn, raw); err != nil {
		w.t.Fatal(err)
	}
	b, _ := io.ReadAll(conn) // a reset is as good as an end
	return string(b)
}

func TestClientCertificates(t *testing.T) {
	a, stranger := newAuthority(t), newAuthority(t)
	a.issue("server")
	a.issue("client")
	stranger.issue("client")
	const get, post = "GET /primary HTTP/1.1\r\n\r\n", "POST /reload HTTP/1.1\r\n\r\n"
	for _, c := range []struct {
		verify, client, raw, want string // want "" means: no connection
	}{
		{"none", "", post, "202 Accepted"},
		{"optional", "", get, "200 OK"},
		{"optional", "", post, "403 Forbidden client certificate required"},
		{"optional", a.path("client"), post, "202 Accepted"},
		{"optional", stranger.path("client"), get, ""},
		{"required", "", get, ""},
		{"required", a.path("client"), get, "200 OK"},
		{"required", a.path("client"), post, "202 Accepted"},
		{"required", stranger.path("client"), post, ""},
	} {
		w := newWorld(t)
		w.opt.Settings.CertFile, w.opt.Settings.CAFile, w.opt.Settings.VerifyClient = a.path("server"), a.path("ca.pem"), c.verify
		stop := w.run()
		answer, _, err := w.tlsSay(a, c.client, c.raw)
		status, body := split(answer)
		switch {
		case c.want == "" && (err == nil || answer != ""):
			t.Errorf("%+v: %q, %v", c, answer, err)
		case c.want != "" && (err != nil || !strings.HasPrefix(status+" "+body, c.want)):
			t.Errorf("%+v: %q, %v", c, answer, err)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	}
}

func TestBadTLSSettingsAreErrorsAtStart(t *testing.T) {
	a := newAuthority(t)
	a.issue("server")
	for name, set := range map[string]Settings{
		"no file":      {CertFile: a.path("nosuch")},
		"no key":       {CertFile: a.path("server"), KeyFile: a.path("ca.pem")},
		"no authority": {CertFile: a.path("server"), VerifyClient: "required"},
		"bad mode":     {CertFile: a.path("server"), VerifyClient: "sometimes", CAFile: a.path("ca.pem")},
	} {
		w := newWorld(t)
		set.Listen = "127.0.0.1:0"
		w.opt.Settings = set
		if s, err := New(w.opt); err == nil {
			s.Close()
			t.Errorf("%s: no error", name)
		}
	}
}

func TestSettingsOfTheFile(t *testing.T) {
	got := SettingsOf(config.REST{
		Listen: config.Address{Host: "::1", Port: 8008}, Auth: basicAuth(), CertFile: "c", KeyFile: "k", CAFile: "a",
	})
	if got.Listen != "[::1]:8008" || got.Auth.Username != "admin" || got.CertFile != "c" || got.KeyFile != "k" || got.CAFile != "a" {
		t.Errorf("%+v", got)
	}
}
