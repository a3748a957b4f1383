// Command regent is the agent, and the operator's tool beside it.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"
)

// version is set by the linker.
var version = "dev"

func main() {
	root := &cobra.Command{Use: "regent", Short: "PostgreSQL high availability", SilenceUsage: true, SilenceErrors: true}
	root.AddCommand(commands()...)
	if err := root.ExecuteContext(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

// commands lists what regent can do.
func commands() []*cobra.Command { return []*cobra.Command{agentCommand()} }
