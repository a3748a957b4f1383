// Command regent is the agent, and the operator's tool beside it.
package main

import (
	"context"
	"os"
	"path/filepath"

	"github.com/pgregent/regent/internal/ctl"
)

// version is set by the linker.
var version = "dev"

func main() {
	name, args := filepath.Base(os.Args[0]), os.Args[1:]
	if waits(name, args) {
		lazyTimers()
	}
	os.Exit(run(context.Background(), environment(), name, args))
}

// run carries out one call. Under the name patroni the program is the agent, under
// patronictl the operator's tool with patronictl's name in its texts.
func run(ctx context.Context, env ctl.Env, name string, args []string) int {
	switch name {
	case "patroni":
		args = append([]string{"agent"}, args...)
	case "patronictl":
		env.Program = name
	}
	app := ctl.New(env)
	root := app.Root()
	root.AddCommand(commands()...)
	return app.Execute(ctx, root, args)
}
