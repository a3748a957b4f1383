// Package advice says what an operator can do when a store that is a server somewhere can't be
// used: the words for an error of the network or of TLS, which say what happened and not what to
// change. It knows no store; each names its section of the configuration and its own cases.
package advice

import (
	"regexp"
	"strings"
)

// Case is what to do about errors that contain one of these texts.
type Case struct {
	Texts []string
	Do    string
}

// network are the cases of every store, the more particular ones first. SECTION is the store's
// section, SCHEME its setting for TLS.
var network = []Case{
	{[]string{"connection refused"}, "nothing listens there: start the server, or correct the address in the section SECTION"},
	{[]string{"no such host", "server misbehaving"}, "the name doesn't resolve: correct it in the section SECTION, or in DNS"},
	{[]string{"no route to host", "network is unreachable", "i/o timeout"}, "there is no way to that address: see whether the host runs, and the network and firewall between"},
	{[]string{"remote error: tls: expired certificate"}, "the server says that our certificate has expired: renew SECTION.cert"},
	{[]string{"certificate has expired or is not yet valid"}, "renew the server's certificate, or set this host's clock"},
	{[]string{"remote error: tls: unknown certificate authority"}, "the server doesn't trust who issued our certificate: SECTION.cert must be of an authority that the server trusts"},
	{[]string{"certificate signed by unknown authority", "certificate is not trusted"}, "SECTION.cacert must name the authority that issued the server's certificate"},
	{[]string{"x509: certificate is valid for", "x509: cannot validate certificate for", "certificate is not valid for any names"}, "address the server, in the section SECTION, by a name that its certificate has"},
	{[]string{"remote error: tls: bad certificate", "remote error: tls: certificate required", "remote error: tls: handshake failure", "remote error: tls: unknown certificate"},
		"the server wants a certificate of an authority that it trusts: set SECTION.cert and SECTION.key"},
	{[]string{"first record does not look like a TLS handshake", "server gave HTTP response to HTTPS client", "authentication handshake failed: EOF"},
		"the server seems to speak no TLS: set SCHEME to http, or correct the port"},
	{[]string{"error reading server preface: EOF", "HTTP request to an HTTPS server"}, "the server seems to speak TLS only: set SCHEME to https"},
	{[]string{"looked like an HTTP/1.1 header", "404 page not found", "malformed HTTP response"}, "something else listens there: correct the address in the section SECTION"},
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
			for _, text := range c.Texts {
				if strings.Contains(said, text) {
					return advised{err, b.named(c.Do)}
				}
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
