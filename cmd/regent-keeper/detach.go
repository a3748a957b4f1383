package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/pgregent/regent/pgmgr/keeper"
)

// readyLine is what a keeper reports when it serves. Anything else is its exit code
// and a sentence.
const readyLine = "serving"

// detach starts the keeper proper and waits until it serves. Its parent is this
// process, which ends at once: the keeper is inherited by init (or the nearest
// subreaper), and outlives whoever asked for it.
func detach(o options, stderr io.Writer) int {
	code, err := detached(o)
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "regent-keeper:", err)
	}
	return code
}

func detached(o options) (int, error) {
	self, err := os.Executable()
	if err != nil {
		return keeper.ExitFailed, fmt.Errorf("find own program: %w", err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return keeper.ExitFailed, fmt.Errorf("open %s: %w", os.DevNull, err)
	}
	defer func() { _ = null.Close() }()
	out := null
	args := []string{self, "--run-dir", o.runDir, "--data-dir", o.dataDir, "--ready-fd", "3"}
	if o.logFile != "" {
		args = append(args, "--log", o.logFile)
		// What the runtime has to say, should it ever, belongs into the log too.
		if out, err = openLog(o.logFile); err != nil {
			return keeper.ExitFailed, err
		}
		defer func() { _ = out.Close() }()
	}
	r, w, err := os.Pipe()
	if err != nil {
		return keeper.ExitFailed, fmt.Errorf("make the ready pipe: %w", err)
	}
	defer func() { _ = r.Close() }()
	p, err := os.StartProcess(self, args, &os.ProcAttr{
		Dir:   "/",
		Env:   os.Environ(),
		Files: []*os.File{null, out, out, w},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	_ = w.Close() // the keeper has its own
	if err != nil {
		return keeper.ExitFailed, fmt.Errorf("start the keeper: %w", err)
	}
	said, err := io.ReadAll(r)
	if err != nil {
		return keeper.ExitFailed, fmt.Errorf("wait for the keeper: %w", err)
	}
	line := strings.TrimSpace(string(said))
	if line == readyLine {
		return keeper.ExitServing, p.Release()
	}
	// It isn't going to serve; take its exit status, so that no zombie is left to
	// whoever inherits this process's children.
	if _, err := p.Wait(); err != nil {
		return keeper.ExitFailed, fmt.Errorf("wait for the keeper: %w", err)
	}
	number, sentence, _ := strings.Cut(line, " ")
	code, err := strconv.Atoi(number)
	if err != nil {
		return keeper.ExitFailed, errors.New("the keeper ended before it served; its log may say why")
	}
	return code, errors.New(sentence)
}

// reportReady tells the detaching process how the start went. fd 0 means that
// nobody asked.
func reportReady(fd int, startErr error) error {
	if fd <= 0 {
		return nil
	}
	w := os.NewFile(uintptr(fd), "ready pipe")
	line := readyLine
	if startErr != nil {
		line = fmt.Sprintf("%d %v", exitCode(startErr), startErr)
	}
	_, err := fmt.Fprintln(w, line)
	if err := errors.Join(err, w.Close()); err != nil {
		return fmt.Errorf("report ready: %w", err)
	}
	return nil
}
