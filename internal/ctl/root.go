package ctl

import (
	"github.com/spf13/cobra"
)

// Root is the program's command with the operator's commands below it. A program adds
// its own and gives it to Execute.
func (a *App) Root() *cobra.Command {
	root := group(&cobra.Command{
		Use:   a.env.Program + " [OPTIONS] COMMAND [ARGS]...",
		Short: "PostgreSQL high availability",
		Long: "Regent keeps one writable PostgreSQL primary alive in a replicated cluster. The agent runs beside each PostgreSQL;\n" +
			"the other commands look at a cluster, change it, and explain what an agent did.",
		// Options before the command belong to the root, so that a command may have
		// others of the same letters.
		TraverseChildren: true,
		Version:          a.env.Version,
	})
	root.SetUsageTemplate(usageTemplate)
	a.Target(root)
	root.AddCommand(
		a.list(), a.topology(), a.switchover(), a.failover(), a.pause(), a.resume(),
		a.restart(), a.reload(), a.reinit(), a.flush(), a.history(), a.showConfig(), a.editConfig(), a.dsn(), a.version(),
		a.journalGroup(), a.why(), a.fsmGroup(), a.configGroup(), a.raftGroup(), a.dcsGroup(), a.docs(),
	)
	return root
}

const usageTemplate = `Usage: {{.UseLine}}{{if .HasAvailableSubCommands}}

Commands:{{range .Commands}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}{{if .HasAvailableLocalFlags}}

Options:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}
`
