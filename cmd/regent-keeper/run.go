package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// keeperProcess is what run holds: everything that must be let go at the end, in
// the reverse order of its making.
type keeperProcess struct {
	lock     *os.File
	guard    *guard
	listener *net.UnixListener
	logFile  *os.File
	lines    *asyncWriter
	log      *slog.Logger
}

// run is the keeper's life. It must be called on a locked thread, on which it
// forks. It returns nil only when PostgreSQL is proven down.
func run(o options) error {
	k, err := prepare(o)
	if readyErr := reportReady(o.readyFD, err); readyErr != nil && err == nil {
		k.log.Warn("whoever started this keeper is gone", "err", readyErr)
	}
	if err != nil {
		return err
	}
	k.log.Info("keeper serves", "version", version, "run_dir", o.runDir, "data_dir", o.dataDir)
	k.serve()
	k.log.Info("keeper ends")
	k.lines.close()
	// The socket's file went with the listener; the lock's file stays, since
	// removing it would let two keepers lock two files of one name.
	return errors.Join(k.guard.unlock(), k.lock.Close())
}

// prepare takes the locks and opens the socket. After an error nothing is held.
func prepare(o options) (k *keeperProcess, err error) {
	var undo []func() error
	defer func() {
		if err != nil {
			for i := len(undo) - 1; i >= 0; i-- {
				_ = undo[i]() // the first error is the one to report
			}
		}
	}()
	k = &keeperProcess{}
	if k.lock, err = lockRunDir(o.runDir, o.dataDir); err != nil {
		return nil, err
	}
	undo = append(undo, k.lock.Close)
	if k.logFile, err = openLog(o.logFile); err != nil {
		return nil, err
	}
	k.lines = newAsyncWriter(k.logFile)
	k.log = newLogger(k.lines)
	if k.guard, err = newGuard(o.dataDir, newWatchdogNote(o.runDir), k.log); err != nil {
		return nil, err
	}
	undo = append(undo, k.guard.timer.close, k.guard.unlock)
	if err = lockExisting(k.guard); err != nil {
		return nil, err
	}
	// Orphaned backends become this process's children, so that it sees them end (S1).
	if err = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("become subreaper: %w", err)
	}
	// The run directory, not the data directory: that one must be replaceable.
	if err = os.Chdir(o.runDir); err != nil {
		return nil, fmt.Errorf("enter run directory: %w", err)
	}
	if k.listener, err = listen(o.runDir); err != nil {
		return nil, err
	}
	return k, nil
}

// serve starts the keeper's goroutines, forks PostgreSQL on the calling thread
// whenever asked, and returns when all of them have ended.
func (k *keeperProcess) serve() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	front := newFront(k.guard, k.listener, k.log, cancel)
	k.guard.emit, k.guard.leave = front.emit, cancel
	// Reaping must be in place before the first child, ignoring before the first
	// signal that would end the keeper with its PostgreSQL alive.
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE)

	go k.lines.run() // ended and waited for by lines.close
	var wg sync.WaitGroup
	wg.Go(func() { front.run(ctx) })
	wg.Go(func() { k.guard.runKiller(ctx) })
	k.guard.wakeKiller() // a killed keeper may have left backends behind (S1)
	wg.Go(k.guard.runFence)
	wg.Go(func() { k.guard.dog.run(ctx) })
	wg.Go(k.guard.runWatch)
	wg.Go(func() {
		for range children {
			k.guard.reap()
		}
	})
	wg.Go(func() { k.obey(ctx, cancel, signals) })
	wg.Go(func() {
		<-ctx.Done()
		// PostgreSQL is down, and closed keeps another from being started.
		signal.Stop(children)
		close(children)
		close(k.guard.watch)
		if err := k.guard.timer.close(); err != nil {
			k.log.Error("close the fence timer", "err", err)
		}
		close(k.guard.spawns)
	})
	k.guard.runSpawner()
	wg.Wait()
}

// obey ends the keeper on a signal unless its PostgreSQL lives (S4).
func (k *keeperProcess) obey(ctx context.Context, cancel context.CancelFunc, signals chan os.Signal) {
	defer signal.Stop(signals)
	for {
		select {
		case <-ctx.Done():
			return
		case s := <-signals:
			if s == syscall.SIGPIPE {
				continue // a broken error output is no reason to end
			}
			if err := k.guard.end(); err != nil {
				k.log.Warn("signal ignored", "signal", s.String(), "why", err)
				continue
			}
			k.log.Info("ending on a signal", "signal", s.String())
			cancel()
		}
	}
}
