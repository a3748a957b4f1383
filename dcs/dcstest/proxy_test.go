package dcstest

import (
	"bufio"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// echo is a server that answers lines with themselves, and tells what it heard.
func echo(t *testing.T) (addr string, heard chan string) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	heard = make(chan string, 10)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			r := bufio.NewReader(conn)
			for line, err := r.ReadString('\n'); err == nil; line, err = r.ReadString('\n') {
				heard <- line
				_, _ = io.WriteString(conn, line)
			}
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { listener.Close(); <-done })
	return listener.Addr().String(), heard
}

func TestAProxyPassesOnBreaksAndSwallows(t *testing.T) {
	addr, heard := echo(t)
	p, err := NewProxy(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	dial := func() (net.Conn, *bufio.Reader) {
		conn, err := net.Dial("tcp", p.Addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		return conn, bufio.NewReader(conn)
	}
	say := func(conn net.Conn, r *bufio.Reader) (string, error) {
		if _, err := io.WriteString(conn, "hello\n"); err != nil {
			return "", err
		}
		return r.ReadString('\n')
	}
	conn, r := dial()
	if got, err := say(conn, r); got != "hello\n" {
		t.Fatalf("got %q, %v", got, err)
	}
	<-heard

	p.LoseReplies(true)
	if err := conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	var late net.Error
	if got, err := say(conn, r); !errors.As(err, &late) || !late.Timeout() {
		t.Errorf("a swallowed answer: %q, %v", got, err)
	}
	if got := <-heard; got != "hello\n" {
		t.Errorf("the server heard %q", got)
	}
	p.LoseReplies(false)
	conn, r = dial()
	if got, err := say(conn, r); got != "hello\n" {
		t.Errorf("afterwards: %q, %v", got, err)
	}

	p.Cut(true)
	if got, err := r.ReadString('\n'); !errors.Is(err, io.EOF) {
		t.Errorf("a cut connection: %q, %v", got, err)
	}
	conn, r = dial()
	if got, err := say(conn, r); err == nil {
		t.Errorf("a new connection while cut: %q", got)
	}
	p.Cut(false)
	conn, r = dial()
	if got, err := say(conn, r); got != "hello\n" {
		t.Errorf("healed: %q, %v", got, err)
	}
}
