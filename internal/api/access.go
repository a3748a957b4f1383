package api

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/internal/config"
)

// Settings are the parts of the restapi section that a reload can change.
type Settings struct {
	// Listen is host:port; the host may be a name, an address, * or empty.
	Listen string
	// Auth protects what changes something, once its Username is set.
	Auth config.BasicAuth
	// CertFile makes the server speak TLS. KeyFile is empty when the key is in the
	// same file.
	CertFile, KeyFile string
	// VerifyClient is "none" (or empty), "optional" (a certificate of CAFile's
	// authority for what changes something) or "required" (for everything).
	VerifyClient, CAFile string
	// Allowlist limits what changes something to these hosts, addresses and networks;
	// AllowMembers adds the hosts of the members' API addresses. Names are resolved
	// when the settings are put in force.
	Allowlist    []string
	AllowMembers bool
}

// SettingsOf takes what the member's file says.
func SettingsOf(c config.REST) Settings {
	return Settings{Listen: c.Listen.String(), Auth: c.Auth, CertFile: c.CertFile, KeyFile: c.KeyFile, CAFile: c.CAFile}
}

// resolveWithin bounds the resolution of a name in the allow list.
const resolveWithin = 2 * time.Second

// access decides who may connect, and who may change something.
type access struct {
	tls *tls.Config // nil: plain text
	// needsCert: requests that change something must come with a certificate.
	needsCert bool
	authOn    bool
	// auth is the hash of the expected credentials, so that comparing takes the same
	// time whatever was sent.
	auth     [sha256.Size]byte
	limited  bool
	networks []netip.Prefix
	members  bool
}

func newAccess(set Settings) (*access, error) {
	a := &access{members: set.AllowMembers, limited: set.AllowMembers || len(set.Allowlist) > 0}
	if set.Auth.Username != "" {
		a.authOn = true
		a.auth = credentials(base64.StdEncoding.EncodeToString([]byte(set.Auth.Username + ":" + set.Auth.Password.Reveal())))
	}
	for _, entry := range set.Allowlist {
		networks, err := resolve(entry)
		if err != nil {
			return nil, err
		}
		a.networks = append(a.networks, networks...)
	}
	if err := a.readTLS(set); err != nil {
		return nil, err
	}
	return a, nil
}

func credentials(encoded string) [sha256.Size]byte { return sha256.Sum256([]byte(encoded)) }

// readTLS reads the certificate files.
func (a *access) readTLS(set Settings) error {
	if set.CertFile == "" {
		return nil
	}
	key := set.KeyFile
	if key == "" {
		key = set.CertFile
	}
	cert, err := tls.LoadX509KeyPair(set.CertFile, key)
	if err != nil {
		return fmt.Errorf("certificate %s: %w", set.CertFile, err)
	}
	a.tls = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	switch strings.ToLower(set.VerifyClient) {
	case "", "none":
		return nil
	case "optional":
		a.tls.ClientAuth = tls.VerifyClientCertIfGiven
	case "required":
		a.tls.ClientAuth = tls.RequireAndVerifyClientCert
	default:
		return fmt.Errorf("verify_client %q: must be none, optional or required", set.VerifyClient)
	}
	a.needsCert = true
	pem, err := os.ReadFile(set.CAFile)
	if err != nil {
		return fmt.Errorf("authority of client certificates: %w", err)
	}
	a.tls.ClientCAs = x509.NewCertPool()
	if !a.tls.ClientCAs.AppendCertsFromPEM(pem) {
		return fmt.Errorf("authority of client certificates %s: no certificate in it", set.CAFile)
	}
	return nil
}

// secure runs the TLS handshake, within the connection's deadline.
func (a *access) secure(ctx context.Context, conn net.Conn) (net.Conn, error) {
	if a.tls == nil {
		return conn, nil
	}
	secured := tls.Server(conn, a.tls)
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("tls handshake: %w", err)
	}
	return secured, nil
}

// check refuses a request that changes something, or returns nil: first by address,
// then by certificate, then by credentials.
func (a *access) check(ctx context.Context, r *request, members []events.Member) *reply {
	if a.limited && !a.allowed(ctx, r.conn.RemoteAddr(), members) {
		return inText(http.StatusForbidden, "Access is denied")
	}
	if a.needsCert {
		secured, ok := r.conn.(*tls.Conn)
		if !ok || len(secured.ConnectionState().VerifiedChains) == 0 {
			return inText(http.StatusForbidden, "client certificate required")
		}
	}
	if !a.authOn {
		return nil
	}
	header := r.header.Get("Authorization")
	if header == "" {
		return unauthorized("no auth header received")
	}
	sent, basic := strings.CutPrefix(header, "Basic ")
	hash := credentials(sent)
	if subtle.ConstantTimeCompare(hash[:], a.auth[:]) != 1 || !basic {
		return unauthorized("not authenticated")
	}
	return nil
}

func unauthorized(text string) *reply {
	out := inText(http.StatusUnauthorized, text)
	out.headers = [][2]string{{"WWW-Authenticate", `Basic realm="Patroni"`}}
	return out
}

func (a *access) allowed(ctx context.Context, from net.Addr, members []events.Member) bool {
	peer, err := netip.ParseAddrPort(from.String())
	if err != nil {
		return false
	}
	addr := peer.Addr().Unmap().WithZone("")
	for _, n := range a.networks {
		if n.Contains(addr) {
			return true
		}
	}
	if !a.members {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, resolveWithin)
	defer cancel()
	for _, m := range members {
		u, err := url.Parse(m.APIURL)
		if err != nil || u.Hostname() == "" {
			continue
		}
		addrs, err := lookUp(ctx, u.Hostname())
		for _, have := range addrs {
			if err == nil && have == addr {
				return true
			}
		}
	}
	return false
}

// resolve reads an entry of the allow list.
func resolve(entry string) ([]netip.Prefix, error) {
	if prefix, err := netip.ParsePrefix(entry); err == nil {
		return []netip.Prefix{prefix.Masked()}, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), resolveWithin)
	defer cancel()
	addrs, err := lookUp(ctx, entry)
	if err != nil {
		return nil, fmt.Errorf("allow list: %w", err)
	}
	var out []netip.Prefix
	for _, a := range addrs {
		out = append(out, netip.PrefixFrom(a, a.BitLen()))
	}
	return out, nil
}

var errNoAddress = errors.New("it has no address")

func lookUp(ctx context.Context, host string) ([]netip.Addr, error) {
	if addr, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return []netip.Addr{addr.Unmap().WithZone("")}, nil
	}
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err == nil && len(found) == 0 {
		err = errNoAddress
	}
	if err != nil {
		return nil, fmt.Errorf("resolve %s: %w", host, err)
	}
	for i := range found {
		found[i] = found[i].Unmap().WithZone("")
	}
	return found, nil
}
