package advice

import (
	"errors"
	"fmt"
	"testing"
)

// What happened stays, and the kind of the error with it; what to do comes behind it, once.
func TestAdviceFollowsWhatHappened(t *testing.T) {
	kind := errors.New("store unavailable")
	book := Book{Section: "etcd3", Scheme: "etcd3.protocol", Own: []Case{{Texts: []string{"no leader"}, Do: "start the others in SECTION"}}}
	for said, want := range map[string]string{
		`rpc error: code = Unavailable desc = connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused"`: "store unavailable: dial tcp 127.0.0.1:1: connect: connection refused; " +
			"nothing listens there: start the server, or correct the address in the section etcd3",
		"rpc error: code = Unavailable desc = etcdserver: no leader": "store unavailable: etcdserver: no leader; start the others in etcd3",
		"tls: first record does not look like a TLS handshake": "store unavailable: tls: first record does not look like a TLS handshake; " +
			"the server seems to speak no TLS: set etcd3.protocol to http, or correct the port",
		"https://a:1: write: broken pipe": "store unavailable: https://a:1: write: broken pipe; " +
			"the server hung up; if it does so each time, it wants a certificate of an authority that it trusts: set etcd3.cert and etcd3.key",
		"http://a:1: write: broken pipe": "store unavailable: http://a:1: write: broken pipe",
		"connection error: desc = \"error reading server preface: connection reset by peer\"": "store unavailable: error reading server preface: connection reset by peer; " +
			"the server seems to speak TLS only: set etcd3.protocol to https",
		"error reading server preface: http2: frame too large, note that the frame header looked like an HTTP/1.1 header": "store unavailable: " +
			"error reading server preface: http2: frame too large, note that the frame header looked like an HTTP/1.1 header; " +
			"something else listens there: correct the address in the section etcd3",
		"nobody has heard of this": "store unavailable: nobody has heard of this",
	} {
		err := book.On(fmt.Errorf("%w: %w", kind, errors.New(said)))
		if err.Error() != want || !errors.Is(err, kind) {
			t.Errorf("%s:\nsays %v\nwant %s", said, err, want)
		}
	}
	if err := book.On(nil); err != nil {
		t.Errorf("no error became %v", err)
	}
}
