package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	// maxHead bounds a request's line and headers, maxBody its body: a configuration
	// is a few kB, and the stores take no more than this.
	maxHead = 64 << 10
	maxBody = 1 << 20
	// headWithin bounds the TLS handshake and the reading of a request's head,
	// bodyWithin that of its body, and writeWithin the reply. A client that needs
	// longer is of no use to anybody, and keeps others out.
	headWithin  = 5 * time.Second
	bodyWithin  = 10 * time.Second
	writeWithin = 5 * time.Second
	// lingerWithin is how long a client that still sends may go on doing so, so that
	// it reads the reply instead of a reset connection.
	lingerWithin = 500 * time.Millisecond
)

// request is one request as far as it has been read: the body comes later, if its
// handler wants it.
type request struct {
	method string
	// path begins with exactly one slash where the client's did with any number; the
	// query is cut off.
	path   string
	query  url.Values
	header http.Header
	// length of the body; negative when the client didn't say.
	length int64
	// streams: the body comes in chunks, which this server doesn't take.
	streams bool
	body    io.Reader
	conn    net.Conn
	line    string // for the log
}

var errHead = fmt.Errorf("the request's head is longer than %d bytes", maxHead)

// readRequest reads a request's head.
func readRequest(conn net.Conn) (*request, error) {
	noted := &notingReader{from: conn}
	limited := &io.LimitedReader{R: noted, N: maxHead}
	buffered := bufio.NewReader(limited)
	in, err := http.ReadRequest(buffered)
	switch {
	case err != nil && limited.N <= 0:
		return nil, errHead
	case err != nil && noted.err != nil:
		return nil, fmt.Errorf("read the request: %w", noted.err)
	case err != nil:
		return nil, fmt.Errorf("read the request: %w", err)
	}
	limited.N = maxBody + 1
	target, _, _ := strings.Cut(in.RequestURI, "#")
	path, rawQuery, _ := strings.Cut(target, "?")
	if strings.HasPrefix(path, "//") {
		path = "/" + strings.TrimLeft(path, "/")
	}
	query, _ := url.ParseQuery(rawQuery) // what can't be read is left out
	r := &request{
		method: in.Method, path: path, query: query, header: in.Header, length: -1, conn: conn,
		streams: len(in.TransferEncoding) > 0, body: in.Body,
		line: fmt.Sprintf("%s %s %s", in.Method, in.RequestURI, in.Proto),
	}
	if in.Header.Get("Content-Length") != "" && !r.streams {
		r.length = in.ContentLength
	}
	return r, nil
}

// notingReader keeps the error that ended reading: a line that was cut short by it
// reads like a malformed one.
type notingReader struct {
	from io.Reader
	err  error
}

// Read implements io.Reader.
func (n *notingReader) Read(b []byte) (int, error) {
	got, err := n.from.Read(b)
	if err != nil {
		n.err = err
	}
	return got, err
}

// param is a parameter of the query; empty values count as absent, of several the
// first counts.
func (r *request) param(name string) (string, bool) {
	for _, v := range r.query[name] {
		if v != "" {
			return v, true
		}
	}
	return "", false
}

// read takes the whole body; a refusal is in the reply. Without a length it is
// empty if it is optional.
func (r *request) read(optional bool) ([]byte, *reply) {
	switch {
	case r.length < 0 && optional:
		return nil, nil
	case r.length < 0:
		return nil, page(http.StatusLengthRequired)
	case r.length > maxBody:
		return nil, page(http.StatusRequestEntityTooLarge)
	}
	if err := r.conn.SetReadDeadline(time.Now().Add(bodyWithin)); err != nil {
		return nil, page(http.StatusBadRequest)
	}
	body := make([]byte, r.length)
	if _, err := io.ReadFull(r.body, body); err != nil {
		return nil, page(http.StatusBadRequest)
	}
	r.length = 0
	return body, nil
}

// mapping reads the body as a JSON mapping.
func (r *request) mapping(optional bool) (fields, []byte, *reply) {
	body, refusal := r.read(optional)
	if refusal != nil {
		return nil, nil, refusal
	}
	if len(body) == 0 && optional {
		return nil, nil, nil
	}
	f, err := readFields(body)
	if err != nil || (len(f) == 0 && !optional) {
		return nil, nil, page(http.StatusBadRequest)
	}
	return f, body, nil
}

// reply is an answer. Without a content type it is the status line alone.
type reply struct {
	code    int
	reason  string // of the status line, when not the usual one
	kind    string // content type
	headers [][2]string
	body    []byte
	isPage  bool
	// stream, if set, goes on writing to the client after the body, until it returns.
	stream func(ctx context.Context, conn net.Conn)
}

// bare is the status line and nothing else.
func bare(code int) *reply { return &reply{code: code} }

// verdict is the bare answer to a yes-or-no question.
func verdict(ok bool) *reply { return bare(statusOf(ok)) }

func statusOf(ok bool) int {
	if ok {
		return http.StatusOK
	}
	return http.StatusServiceUnavailable
}

// inJSON answers with a JSON value.
func inJSON(code int, body []byte) *reply {
	return &reply{code: code, kind: "application/json", body: body}
}

// inText answers with a sentence, under the content type that clients know.
func inText(code int, text string) *reply {
	return &reply{code: code, kind: "text/html", body: []byte(text)}
}

// page answers with the HTML page of an error.
func page(code int) *reply { return pageSaying(code, http.StatusText(code)) }

// pageSaying is page with another message, which goes into the status line too.
func pageSaying(code int, message string) *reply {
	message = strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return ' '
		}
		return c
	}, message)
	body := fmt.Sprintf(`<!DOCTYPE HTML>
<html lang="en">
<head><meta charset="utf-8"><title>%d %s</title></head>
<body>
<p>Error code: %d</p>
<p>Message: %s.</p>
<p>Error code explanation: %d - %s.</p>
</body>
</html>
`, code, http.StatusText(code), code, escapeHTML(message), code, explanation(code))
	return &reply{code: code, reason: message, kind: "text/html;charset=utf-8", body: []byte(body), isPage: true}
}

// escapeHTML leaves quotes alone: clients look for messages that have some.
func escapeHTML(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(s)
}

func explanation(code int) string {
	switch code {
	case http.StatusBadRequest:
		return "The request can't be understood"
	case http.StatusConflict:
		return "Somebody else changed it at the same time"
	case http.StatusRequestHeaderFieldsTooLarge:
		return "The request's head is longer than " + strconv.Itoa(maxHead) + " bytes"
	case http.StatusLengthRequired:
		return "The request must say how long its body is"
	case http.StatusRequestEntityTooLarge:
		return "The body is longer than " + strconv.Itoa(maxBody) + " bytes"
	case http.StatusNotImplemented:
		return "Server does not support this operation" // clients look for these words
	case http.StatusBadGateway:
		return "What was asked for is not there, or the change was not taken"
	case http.StatusServiceUnavailable:
		return "It can't be done at the moment"
	default:
		return "Something is wrong in this server"
	}
}

// encode writes the reply's bytes as of the given time.
func (r *reply) encode(server string, now time.Time) []byte {
	reason := r.reason
	if reason == "" {
		reason = http.StatusText(r.code)
	}
	b := fmt.Appendf(nil, "HTTP/1.0 %d %s\r\n", r.code, reason)
	if r.kind == "" {
		return append(b, "\r\n"...)
	}
	b = fmt.Appendf(b, "Server: %s\r\nDate: %s\r\n", server, now.UTC().Format(http.TimeFormat))
	if r.isPage {
		b = append(b, "Connection: close\r\n"...)
	}
	b = fmt.Appendf(b, "Content-Type: %s\r\n", r.kind)
	if r.isPage {
		b = fmt.Appendf(b, "Content-Length: %d\r\n", len(r.body))
	}
	for _, h := range r.headers {
		b = fmt.Appendf(b, "%s: %s\r\n", h[0], h[1])
	}
	return append(append(b, "\r\n"...), r.body...)
}

// unread reports whether the client may still be sending.
func (r *request) unread() bool { return r == nil || r.streams || r.length > 0 }

// hangUp says that the reply is complete: TLS clients take an end without a word for
// an attack. What a client still sends is taken for a moment, because closing with
// unread bytes destroys the reply on its way.
func hangUp(conn net.Conn, unread bool) {
	half, ok := conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil || !unread {
		return
	}
	if conn.SetReadDeadline(time.Now().Add(lingerWithin)) == nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(conn, maxBody)) // whatever comes is thrown away
	}
}

// wasSilence reports whether reading ended because the client said nothing, or
// nothing more: there is nobody to answer.
func wasSilence(err error) bool {
	var timeout net.Error
	return errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || (errors.As(err, &timeout) && timeout.Timeout())
}
