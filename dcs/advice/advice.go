// Package advice says what an operator can do when a store that is a server somewhere can't be
// used: the words for an error of the network or of TLS, which say what happened and not what to
// change. It knows no store; each names its section of the configuration and its own cases.
package advice

import (
	"regexp"
	"slices"
	"strings"
)

// Case is what to do about errors that contain one of these texts.
type Case struct {
	Texts []string
	// Over must be there too, if it isn't empty.
	Over string
	Do   string
}

func (c Case) fits(said string) bool {
	return strings.Contains(said, c.Over) &&
		slices.ContainsFunc(c.Texts, func(text string) bool { return strings.Contains(said, text) })
}

// network are the cases of every store, the more particular ones first. SECTION is the store's
// section, SCHEME its setting for TLS.
var network = []Case{
	{Texts: []string{"connection refused"}, Do: "nothing listens there: start the server, or correct the address in the section SECTION"},
	{Texts: []string{"no such host", "server misbehaving"}, Do: "the name doesn't resolve: correct it in the section SECTION, or in DNS"},
	{Texts: []string{"no route to host", "network is unreachable", "i/o timeout"}, Do: "there is no way to that address: see whether the host runs, and the network and firewall between"},
	{Texts: []string{"remote error: tls: expired certificate"}, Do: "the server says that our certificate has expired: renew SECTION.cert"},
	{Texts: []string{"certificate has expired or is not yet valid"}, Do: "renew the server's certificate, or set this host's clock"},
	{Texts: []string{"remote error: tls: unknown certificate authority"}, Do: "the server doesn't trust who issued our certificate: SECTION.cert must be of an authority that the server trusts"},
	{Texts: []string{"certificate signed by unknown authority", "certificate is not trusted"}, Do: "SECTION.cacert must name the authority that issued the server's certificate"},
	{Texts: []string{"x509: certificate is valid for", "x509: cannot validate certificate for", "certificate is not valid for any names"}, Do: "address the server, in the section SECTION, by a name that its certificate has"},
	{Texts: []string{"remote error: tls: bad certificate", "remote error: tls: certificate required", "remote error: tls: handshake failure", "remote error: tls: unknown certificate"}, Do: "the server wants a certificate of an authority that it trusts: set SECTION.cert and SECTION.key"},
	{Texts: []string{"first record does not look like a TLS handshake", "server gave HTTP response to HTTPS client", "authentication handshake failed: EOF"}, Do: "the server seems to speak no TLS: set SCHEME to http, or correct the port"},
	{Texts: []string{"HTTP request to an HTTPS server"}, Do: "the server seems to speak TLS only: set SCHEME to https"},
	{Texts: []string{"looked like an HTTP/1.1 header", "404 page not found", "malformed HTTP response"}, Do: "something else listens there: correct the address in the section SECTION"},
	// After the one above, which is a preface too.
	{Texts: []string{"error reading server preface"}, Do: "the server seems to speak TLS only: set SCHEME to https"},
	// With TLS 1.3 a client writes before it hears that its certificate isn't wanted, and may find
	// the connection gone before it reads why.
	{Texts: []string{"broken pipe", "connection reset by peer"}, Over: "https://",
		Do: "the server hung up; if it does so each time, it wants a certificate of an authority that it trusts: set SECTION.cert and SECTION.key"},
}

// Book is a store's advice.
type Book struct {
	// Section and Scheme are names in the configuration: of the store, and of its setting for TLS.
	Section, Scheme string
	// Own are the store's own cases, which come first.
	Own []Case
}

// On returns the error with what to do behind it, where that is known and isn't said. It is an
// error of the same kinds.
func (b Book) On(err error) error {
	if err == nil {
		return nil
	}
	said := err.Error()
	for _, list := range [][]Case{b.Own, network} {
		for _, c := range list {
			if c.fits(said) {
				return advised{err, b.named(c.Do)}
			}
		}
	}
	return err
}

func (b Book) named(do string) string {
	return strings.NewReplacer("SECTION", b.Section, "SCHEME", b.Scheme).Replace(do)
}

type advised struct {
	error
	do string
}

func (a advised) Error() string { return plain(a.error.Error()) + "; " + a.do }
func (a advised) Unwrap() error { return a.error }

// wrapping is what gRPC puts around what happened.
var wrapping = regexp.MustCompile(`rpc error: code = \w+ desc = |connection error: desc = "(transport: )?(Error while dialing: )?`)

// plain takes it off.
func plain(said string) string {
	return wrapping.ReplaceAllString(strings.TrimSuffix(strings.TrimSpace(said), `"`), "")
}
