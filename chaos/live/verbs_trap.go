package live

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/pgregent/regent/internal/sandbox"
)

// trapVerbs strike in the middle of something, for which no script is quick enough.
func trapVerbs() []Verb {
	on := []Kind{Do}
	return []Verb{
		{Kinds: on, Form: "set a trap when NODE logs TEXT kill PART of NODE", Ours: true, do: trapOnLog,
			Doc: "From now on that agent's log is looked at every millisecond; the kill comes as soon as the words are in it."},
		{Kinds: on, Form: "set a trap when NODE runs PART kill PART of NODE", do: trapOnProcess,
			Doc: "The same, as soon as such a process exists on that node."},
		{Kinds: []Kind{WaitFor, Expect}, Form: "a trap has sprung", Doc: "One of the traps has struck, and hit.",
			holds: func(_ context.Context, r *run, _ []string) error { return r.trapState() }},
	}
}

// trap waits for its moment.
type trap struct {
	what string
	done chan struct{} // closed when it has struck or was taken away
	err  error         // why it hasn't hit; valid when done
}

var errNotSprung = errors.New("the moment hasn't come")

func (r *run) trapState() error {
	if len(r.traps) == 0 {
		return errors.New("there is no trap")
	}
	var errs []error
	for _, t := range r.traps {
		err := errNotSprung
		select {
		case <-t.done:
			err = t.err
		default:
		}
		if err == nil {
			return nil
		}
		errs = append(errs, fmt.Errorf("trap (%s): %w", t.what, err))
	}
	return errors.Join(errs...)
}

// setTrap looks for the moment until the story ends.
func (r *run) setTrap(what string, now func() (bool, error), strike func() error) {
	t := &trap{what: what, done: make(chan struct{})}
	r.traps = append(r.traps, t)
	r.work.Go(func() {
		defer close(t.done)
		for {
			switch come, err := now(); {
			case err != nil:
				t.err = err
				return
			case come:
				t.err = strike()
				return
			}
			if pause(r.over, trapEvery) != nil {
				t.err = errNotSprung
				return
			}
		}
	})
}

func trapOnLog(_ context.Context, r *run, a []string) error {
	watched, hit, err := r.two(a[0], a[3])
	if err != nil {
		return err
	}
	file, err := os.Open(watched.LogFile())
	if err != nil {
		return err
	}
	at, err := file.Seek(0, 2)
	if err != nil {
		return errors.Join(err, file.Close())
	}
	r.undo = append(r.undo, file.Close)
	var seen []byte
	buf := make([]byte, 64<<10)
	r.setTrap(fmt.Sprintf("%s logs %q", a[0], a[1]), func() (bool, error) {
		n, _ := file.ReadAt(buf, at) // the end of the file is no trouble
		at += int64(n)
		seen = append(seen, buf[:n]...)
		return bytes.Contains(seen, []byte(a[1])), nil
	}, strikeAt(hit, sandbox.Part(a[2])))
	return nil
}

func trapOnProcess(_ context.Context, r *run, a []string) error {
	watched, hit, err := r.two(a[0], a[3])
	if err != nil {
		return err
	}
	r.setTrap(fmt.Sprintf("%s runs %s", a[0], a[1]),
		func() (bool, error) { return len(watched.Find(sandbox.Part(a[1]))) > 0, nil }, strikeAt(hit, sandbox.Part(a[2])))
	return nil
}

func strikeAt(n *sandbox.Node, part sandbox.Part) func() error {
	return func() error {
		switch part {
		case sandbox.Agent: // its supervisor starts it again, as after any crash
			return n.KillAgent()
		case sandbox.Whole:
			return n.KillNode()
		default:
			return n.Signal(part, unix.SIGKILL)
		}
	}
}

// two resolves two names.
func (r *run) two(first, second string) (a, b *sandbox.Node, err error) {
	if a, err = r.node(first); err == nil {
		b, err = r.node(second)
	}
	return a, b, err
}
