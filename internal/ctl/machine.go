package ctl

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pgregent/regent/fsm"
)

func (a *App) fsmGroup() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "fsm COMMAND",
		Short: "Show the state machine that decides",
		Long:  "Show the phases of the agent's state machine and the transitions between them, as this program has them.",
	})
	format := "mermaid"
	graph := &cobra.Command{
		Use:   "graph [OPTIONS]",
		Short: "Draw the phases and transitions",
		Args:  none,
		RunE: a.run(func(context.Context, []string) error {
			drawing := fsm.Mermaid()
			if format == "dot" {
				drawing = fsm.Dot()
			}
			a.println(strings.TrimRight(drawing, "\n"))
			return nil
		}),
	}
	graph.Flags().VarP(choice{&format, []string{"mermaid", "dot"}, "FORMAT"}, "format", "f", "drawing language: mermaid or dot")
	tableFormat := "pretty"
	list := &cobra.Command{
		Use:   "table [OPTIONS]",
		Short: "Print the transition table, with a reason for every edge",
		Args:  none,
		RunE: a.run(func(context.Context, []string) error {
			if tableFormat == "markdown" {
				a.printf("%s", fsm.Markdown())
				return nil
			}
			a.printf("%s", edges(fsm.Table()))
			return nil
		}),
	}
	list.Flags().VarP(choice{&tableFormat, []string{"pretty", "markdown"}, "FORMAT"}, "format", "f", "output format: pretty or markdown")
	cmd.AddCommand(graph, list)
	return cmd
}

// edges prints one row for each phase that an edge leaves.
func edges(all []fsm.Edge) table {
	t := table{header: []string{"From", "Trigger", "To", "Why"}, right: make([]bool, 4)}
	for _, p := range fsm.Phases() {
		for _, e := range all {
			for _, from := range e.From {
				if from == p {
					t.rows = append(t.rows, []string{string(from), string(e.Trigger), string(e.To), e.Why})
				}
			}
		}
	}
	return t
}
