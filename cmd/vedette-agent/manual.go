package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// manualCommand writes the manual pages that the packages bring.
func (a *app) manualCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "manual FOLDER",
		Short:  "Write the manual pages into a folder",
		Hidden: true,
		Args:   arguments("FOLDER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil { //nolint:gosec // manual pages are for everybody
				return fmt.Errorf("make folder of the manual: %w", err)
			}
			root := cmd.Root()
			root.DisableAutoGenTag = true // it holds the day, and the packages are the same on any
			header := &doc.GenManHeader{Section: "1", Source: "Vedette " + version, Manual: "Vedette"}
			if err := doc.GenManTree(root, header, args[0]); err != nil {
				return fmt.Errorf("write manual: %w", err)
			}
			return nil
		},
	}
}
