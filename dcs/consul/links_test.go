package consul

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/pgregent/regent/dcs/dcstest"
)

// link is how a client reaches its server: through a proxy that can be cut, and one that can
// lose the answers to what changes something. If the answers to reads were lost as well, no
// transaction would ever be sent, and none would have an unknown outcome.
type link struct {
	wire *dcstest.Proxy
	http *httptest.Server
	to   string
	back *http.Transport

	mu   sync.Mutex // guards deaf
	deaf chan struct{}
}

func newLink(t *testing.T, to string) *link {
	l := &link{to: to, back: &http.Transport{MaxIdleConnsPerHost: 16}}
	l.http = httptest.NewServer(l)
	var err error
	if l.wire, err = dcstest.NewProxy(l.http.Listener.Addr().String()); err != nil {
		l.http.Close()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		l.loseReplies(false)
		if err := l.wire.Close(); err != nil {
			t.Error(err)
		}
		l.http.CloseClientConnections()
		l.http.Close()
		l.back.CloseIdleConnections()
	})
	return l
}

// loseReplies: nobody who changes something gets an answer until it is called with false, and
// then only that the connection is over.
func (l *link) loseReplies(on bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case on && l.deaf == nil:
		l.deaf = make(chan struct{})
	case !on && l.deaf != nil:
		close(l.deaf)
		l.deaf = nil
	}
}

func (l *link) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	deaf := l.deaf
	l.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler) // which ends the connection without a word
	}
	ctx := r.Context()
	if r.Method == http.MethodPut {
		ctx = context.WithoutCancel(ctx) // what arrives happens
	}
	resp, err := l.ask(ctx, r, body)
	if changing := r.Method == http.MethodPut && !bytes.Contains(body, []byte(barrierKey)); changing && deaf != nil {
		select {
		case <-deaf:
		case <-r.Context().Done():
		}
		err = errors.Join(err, errors.New("lost"))
	}
	if resp != nil {
		defer resp.Body.Close()
	}
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	for name, values := range resp.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(w, resp.Body)
}

func (l *link) ask(ctx context.Context, r *http.Request, body []byte) (*http.Response, error) {
	out := r.Clone(ctx)
	out.URL.Scheme, out.URL.Host, out.RequestURI = "http", l.to, ""
	out.Body = http.NoBody
	if out.ContentLength = int64(len(body)); len(body) > 0 {
		out.Body = io.NopCloser(bytes.NewReader(body))
	}
	return l.back.RoundTrip(out)
}
