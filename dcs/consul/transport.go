package consul

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pgregent/regent/dcs"
)

// dialTimeout bounds a connection's beginning; a Consul agent is next door.
const dialTimeout = 3 * time.Second

// newTransport makes the connections. HTTP/1.1 only: one connection for each request under
// way, so that a cancelled one takes nothing else with it.
func newTransport(secure *tls.Config) *http.Transport {
	dialer := &net.Dialer{
		Timeout: dialTimeout,
		// A host that is gone is noticed while a blocking query waits for it.
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 2 * time.Second, Interval: time.Second, Count: 3},
	}
	return &http.Transport{
		DialContext:         dialer.DialContext,
		TLSClientConfig:     secure,
		TLSNextProto:        map[string]func(string, *tls.Conn) http.RoundTripper{},
		TLSHandshakeTimeout: dialTimeout,
		MaxIdleConnsPerHost: 8,
		IdleConnTimeout:     time.Minute,
	}
}

// callError is a request that got no answer.
type callError struct {
	// left: some of it may have reached the agent.
	left bool
	err  error
}

func (e *callError) Error() string { return e.err.Error() }
func (e *callError) Unwrap() error { return e.err }

// answerError is an answer that is neither yes nor no.
type answerError struct {
	code int
	text string
}

func (e *answerError) Error() string { return fmt.Sprintf("status %d: %s", e.code, e.text) }

// observed is a transport whose errors know how far a request came. Answers other than
// done, no and not found are errors here, so that all kinds of requests are judged alike.
type observed struct{ base http.RoundTripper }

func (o observed) RoundTrip(r *http.Request) (*http.Response, error) {
	var left atomic.Bool
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { left.Store(true) }}
	resp, err := o.base.RoundTrip(r.WithContext(httptrace.WithClientTrace(r.Context(), trace)))
	if err != nil {
		return nil, &callError{left: left.Load(), err: err}
	}
	switch resp.StatusCode {
	case http.StatusOK, http.StatusNotFound, http.StatusConflict:
		return resp, nil
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1024))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		text = []byte(err.Error())
	}
	return nil, &answerError{code: resp.StatusCode, text: strings.TrimSpace(string(text))}
}

// effect says what a request could have done.
type effect bool

const (
	reads  effect = false
	writes effect = true
)

// classify gives an error of a request its class. An error that has one keeps it.
func classify(op string, does effect, err error) error {
	if err == nil {
		return nil
	}
	for _, class := range []error{dcs.ErrRefused, dcs.ErrUnavailable, dcs.ErrUnknown, dcs.ErrBroken} {
		if errors.Is(err, class) {
			return err
		}
	}
	return book.On(fmt.Errorf("%s: %w: %w", op, classOf(does, err), err))
}

func classOf(does effect, err error) error {
	var answer *answerError
	if errors.As(err, &answer) {
		return classOfAnswer(does, answer)
	}
	if hopeless(err) {
		return dcs.ErrBroken
	}
	var call *callError
	errors.As(err, &call)
	// An answer that broke off is no callError: the request had arrived.
	if does == reads || (call != nil && !call.left) {
		return dcs.ErrUnavailable
	}
	return dcs.ErrUnknown
}

// Answers that say that a server didn't even begin.
var untouched = []string{
	"No cluster leader", "node is not the leader", "No known Consul servers",
	"No path to datacenter", "rate limit", "Too many requests",
	// What a session is to depend on isn't there, or fails.
	"Missing node registration", "Missing check", "in critical state",
}

// Answers that only an operator can change. Older servers say 500 to a token they don't know.
var hopelessAnswers = []string{"Permission denied", "ACL not found", "ACL disabled", "Invalid Session TTL", "cross datacenter lock"}

func classOfAnswer(does effect, answer *answerError) error {
	switch {
	case answer.code == http.StatusForbidden, answer.code == http.StatusUnauthorized,
		answer.code == http.StatusBadRequest, answer.code == http.StatusRequestEntityTooLarge,
		contains(answer.text, hopelessAnswers...):
		return dcs.ErrBroken
	case does == reads, answer.code == http.StatusTooManyRequests, contains(answer.text, untouched...):
		return dcs.ErrUnavailable
	default:
		return dcs.ErrUnknown
	}
}

// hopeless reports whether a connection can't come about however often it is tried. Then no
// request was read: either side refused the other's certificate, or one speaks no TLS.
func hopeless(err error) bool {
	var verification *tls.CertificateVerificationError
	if errors.As(err, &verification) || contains(err.Error(), "server gave HTTP response to HTTPS client") {
		return true
	}
	var alert *net.OpError
	return errors.As(err, &alert) && alert.Op == "remote error" && contains(alert.Error(), "certificate", "handshake failure")
}

func contains(text string, any ...string) bool {
	for _, part := range any {
		if strings.Contains(text, part) {
			return true
		}
	}
	return false
}
