package main

import (
	"bytes"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/pgregent/regent/chaos/live"
)

//go:generate go run . scenarios -o ../../docs/operations/scenarios.md

func scenariosCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "scenarios", Short: "Print the vocabulary of scenario scripts", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			var text bytes.Buffer
			if err := live.Vocabulary(&text); err != nil {
				return err
			}
			if file == "" {
				_, err := os.Stdout.Write(text.Bytes())
				return err
			}
			if err := os.WriteFile(file, text.Bytes(), 0o644); err != nil {
				return fmt.Errorf("write the vocabulary: %w", err)
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&file, "output", "o", "", "write it to this file")
	return cmd
}
