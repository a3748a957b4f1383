package freeport

import (
	"net"
	"testing"
)

func TestAPortIsTakenOnceUntilItIsReleased(t *testing.T) {
	const low, high = 60100, 60103
	var held []Port
	for {
		p, err := Take(low, high)
		if err != nil {
			break
		}
		for _, other := range held {
			if other.Number == p.Number {
				t.Fatalf("port %d was given out twice", p.Number)
			}
		}
		held = append(held, p)
	}
	if len(held) == 0 {
		t.Skip("all ports of the range are used by others")
	}
	first := held[0]
	if err := first.Release(); err != nil {
		t.Fatal(err)
	}
	again, err := Take(low, high)
	if err != nil || again.Number != first.Number {
		t.Errorf("after %d was released, %d is given out (%v)", first.Number, again.Number, err)
	}
	for _, p := range append(held[1:], again) {
		if err := p.Release(); err != nil {
			t.Error(err)
		}
	}
}

func TestAPortInUseIsNotTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	number := l.Addr().(*net.TCPAddr).Port
	if p, err := Take(number, number); err == nil {
		t.Errorf("port %d has a listener and was given out", p.Number)
	}
}
