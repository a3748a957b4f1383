package embedded

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/pgregent/regent/internal/tlsconf"
)

// Every connection begins with one line each way, inside TLS where there is TLS:
//
//	regent/1 raft SERVER-ID      or      regent/1 rpc CLUSTER
//	ok                           or      no REASON
//
// The dialling end says whom it means. A raft connection names the server id, so
// that a node whose folder was lost isn't taken for the one it was: it would vote
// again where it has voted before. A connection that begins otherwise is the other
// kind of TLS setting, which both ends can then name in their logs.
const (
	greetingRaft = "raft"
	greetingRPC  = "rpc"

	greetingPrefix = "regent/1 "
	greetingOK     = "ok"
	greetingNo     = "no "
	greetingMax    = 400
	// greetingTime bounds the handshake at the accepting end.
	greetingTime = 5 * time.Second
)

// The reasons for "no".
const (
	reasonTLS     = "tls"     // this node speaks TLS, you don't
	reasonPlain   = "plain"   // you speak TLS, this node doesn't
	reasonServer  = "server"  // the server id isn't this node's
	reasonCluster = "cluster" // this node belongs to another cluster
	reasonUnknown = "unknown" // not a greeting
)

// What a refused greeting means, for logs and operators.
var (
	errNeedsTLS     = errors.New("the peer speaks TLS, this node plain text: give both the same cluster secret")
	errOtherServer  = errors.New("another raft server answers there: the folder of that node was replaced")
	errOtherCluster = errors.New("the peer belongs to another cluster")
	errStranger     = errors.New("whatever listens there isn't a regent node")
)

// settingsError reports whether err will stay until an operator changes settings.
func settingsError(err error) bool {
	for _, target := range []error{
		tlsconf.ErrSecretDiffers, tlsconf.ErrPlain, tlsconf.ErrUntrusted, errNeedsTLS, errOtherCluster, errStranger,
	} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// bufferedConn reads through the buffer that the greeting was read with.
type bufferedConn struct {
	net.Conn
	r *bufio.Reader
}

func (c bufferedConn) Read(p []byte) (int, error) { return c.r.Read(p) }

// dialPeer connects and greets. The connection has no deadline afterwards.
func dialPeer(ctx context.Context, n network, cfg *tls.Config, addr, kind, target string) (net.Conn, error) {
	conn, err := n.Dial(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", addr, err)
	}
	// A deadline in the past ends whatever blocks when ctx ends.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	greeted, err := greetAsClient(ctx, conn, cfg, kind, target)
	if err == nil && stop() {
		return greeted, nil
	}
	_ = conn.Close()
	if ctxErr := ctx.Err(); ctxErr != nil {
		err = ctxErr
	}
	return nil, fmt.Errorf("greet %s: %w", addr, err)
}

func greetAsClient(ctx context.Context, conn net.Conn, cfg *tls.Config, kind, target string) (net.Conn, error) {
	if cfg != nil {
		secured, err := tlsconf.Client(ctx, conn, cfg)
		if err != nil {
			return nil, err
		}
		conn = secured
	}
	if _, err := io.WriteString(conn, greetingPrefix+kind+" "+target+"\n"); err != nil {
		return nil, tlsconf.Explain(err)
	}
	r := bufio.NewReader(conn)
	line, err := readLine(r)
	if err != nil {
		return nil, tlsconf.Explain(err)
	}
	if line == greetingOK {
		return bufferedConn{conn, r}, nil
	}
	reason, _ := strings.CutPrefix(line, greetingNo)
	switch reason {
	case reasonTLS:
		return nil, errNeedsTLS
	case reasonServer:
		return nil, errOtherServer
	case reasonCluster:
		return nil, errOtherCluster
	default:
		return nil, errStranger
	}
}

func readLine(r *bufio.Reader) (string, error) {
	var line []byte
	for len(line) < greetingMax {
		b, err := r.ReadByte()
		if err != nil {
			return "", err
		}
		if b == '\n' {
			return string(line), nil
		}
		line = append(line, b)
	}
	return "", errStranger
}

// greetAsServer finds out what kind of connection it is. check says whether the
// kind's target is meant for us, by returning "" or a reason for "no".
func greetAsServer(ctx context.Context, conn net.Conn, cfg *tls.Config, check func(kind, target string) string) (net.Conn, string, error) {
	r := bufio.NewReader(conn)
	first, err := r.Peek(1)
	if err != nil {
		return nil, "", fmt.Errorf("greeting: %w", err)
	}
	isTLS := tlsconf.FirstByteIsTLS(first[0])
	conn = bufferedConn{conn, r}
	switch {
	case cfg == nil && isTLS:
		refuse(conn, reasonPlain)
		return nil, "", errNeedsTLS
	case cfg != nil && !isTLS:
		refuse(conn, reasonTLS)
		return nil, "", tlsconf.ErrPlain
	case cfg != nil:
		secured, err := tlsconf.Server(ctx, conn, cfg)
		if err != nil {
			return nil, "", err
		}
		r = bufio.NewReader(secured)
		conn = bufferedConn{secured, r}
	}
	line, err := readLine(r)
	if err != nil {
		return nil, "", fmt.Errorf("greeting: %w", tlsconf.Explain(err))
	}
	rest, ok := strings.CutPrefix(line, greetingPrefix)
	kind, target, ok2 := strings.Cut(rest, " ")
	if !ok || !ok2 {
		refuse(conn, reasonUnknown)
		return nil, "", errStranger
	}
	if reason := check(kind, target); reason != "" {
		refuse(conn, reason)
		switch reason {
		case reasonServer:
			return nil, "", errOtherServer
		case reasonCluster:
			return nil, "", errOtherCluster
		}
		return nil, "", errStranger
	}
	if _, err := io.WriteString(conn, greetingOK+"\n"); err != nil {
		return nil, "", fmt.Errorf("greeting: %w", err)
	}
	return conn, kind, nil
}

// refuse says no, and reads what the peer still sends until it closes: a connection
// that is closed with unread data is reset, and the answer would be lost with it.
func refuse(conn net.Conn, reason string) {
	if _, err := io.WriteString(conn, greetingNo+reason+"\n"); err != nil {
		return
	}
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	_, _ = io.CopyN(io.Discard, conn, 1<<16)
}
