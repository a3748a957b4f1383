package ctl

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/internal/config"
	"github.com/pgregent/regent/internal/tlsconf"
)

// Env is the world as the commands see it. Every field must be set, but for those that
// say otherwise.
type Env struct {
	// Program is the name in usage lines: regent, or patronictl when called so.
	Program string
	// Version is this build's.
	Version string
	In      io.Reader
	Out     io.Writer
	Err     io.Writer
	// Environ is the environment, in the form of os.Environ.
	Environ []string
	// Home is the user's home folder; empty when there is none.
	Home string
	// Terminal: Out is a terminal, whose screen may be cleared.
	Terminal bool
	// Now gives the time in the operator's zone.
	Now func() time.Time
	// Open connects to the store. The command closes it.
	Open func(ctx context.Context, at StoreAddress) (dcs.Store, error)
	// Dial prepares calls to the members' REST API.
	Dial func(c config.Ctl) (Caller, error)
	// Edit lets the operator edit a file with the first of the programs that can be
	// started, and returns that program's exit code.
	Edit func(ctx context.Context, programs []string, file string) (int, error)
	// Interrupts returns a context that ends when the operator interrupts the command.
	Interrupts func(context.Context) (context.Context, context.CancelFunc)
	// Log gets what commands warn about.
	Log *slog.Logger
}

// StoreAddress says where a cluster's store is.
type StoreAddress struct {
	// Config says where a store outside of the agents is; nil: the embedded one, of which the
	// rest speaks. Addrs and Cluster count for both.
	Config *config.Config
	// Addrs are the nodes of the embedded store, host:port, or the servers of another one.
	Addrs []string
	// Cluster is the base path of its keys; empty when it isn't known, and any will do.
	Cluster string
	// Secret of the cluster; unset: plain text.
	Secret config.Secret
	// Accept is a second secret that nodes may use, while it is being changed.
	Accept config.Secret
	// Files of certificates take the secret's place where there are any.
	Files tlsconf.Files
}

// Caller calls members' REST API.
type Caller interface {
	// Call sends a request and returns the reply. An error that wraps ErrUnreachable
	// says that the member has not seen the request; any other, that it may have.
	Call(ctx context.Context, method, url string, body []byte) (status int, reply []byte, err error)
}

// App is the commands, and the settings that they share.
type App struct {
	env    Env
	target target
	in     *lines
}

// New makes the commands for an environment.
func New(env Env) *App {
	return &App{env: env, in: &lines{from: env.In}}
}

// printf writes to stdout. What can't be written there can't be told anywhere better.
func (a *App) printf(format string, args ...any) {
	_, _ = fmt.Fprintf(a.env.Out, format, args...)
}

func (a *App) println(text string) { a.printf("%s\n", text) }

// variable reads the environment; of a name that stands twice the last counts.
func (a *App) variable(name string) string {
	value := ""
	for _, pair := range a.env.Environ {
		if len(pair) > len(name) && pair[:len(name)] == name && pair[len(name)] == '=' {
			value = pair[len(name)+1:]
		}
	}
	return value
}

// timestamp is the time in front of results.
func (a *App) timestamp() string { return a.env.Now().Format("2006-01-02 15:04:05.00000") }
