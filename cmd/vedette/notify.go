package main

import (
	_ "embed"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/vedette-edge/vedette/protocol/document"
	"github.com/vedette-edge/vedette/protocol/operator"
)

//go:embed notify_example.yaml
var exampleNotify string

func notifyCommand(a *app) *cobra.Command {
	return group("notify", "Say who is told of incidents, and how", `Receivers of messages about incidents: webhooks (signed JSON), mail, and chats that
take Slack's incoming webhooks. One cause is one message, gathered with what
belongs to it; it is repeated while nobody acknowledges it, and told when it is
over.`, notifySpec(a), notifyShow(a), notifySet(a), notifyTest(a))
}

func notifySpec(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "spec", Short: "Print a file of settings with every field explained", Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			return printDocument[operator.NotifySettings](a, exampleNotify, "the settings")
		},
	}
}

// printDocument prints a document as it is written, or as JSON.
func printDocument[T any](a *app, text, what string) error {
	if !a.json() {
		_, err := io.WriteString(plain{a.out}, text)
		return err
	}
	v, err := document.Parse[T]([]byte(text), what)
	if err != nil {
		return err
	}
	return writeJSON(a.out, v)
}

// readDocument reads a file that a person wrote.
func readDocument[T any](path, what string) (T, error) {
	b, err := readFile(path, document.MaxSize)
	if err != nil {
		return *new(T), err
	}
	v, err := document.Parse[T](b, what)
	if err != nil {
		return v, usagef("%s: %w", path, err)
	}
	return v, nil
}

// showDocument prints a value as a document that can be edited and given back.
func (a *app) showDocument(v any) error {
	text, err := document.Format(v)
	if err != nil {
		return err
	}
	return a.print(v, func(w io.Writer) { _, _ = w.Write(text) })
}

func notifyShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show", Short: "Show who is told, without secrets, as a file that can be set again", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			s, err := c.NotifySettings(cmd.Context())
			if err != nil {
				return err
			}
			return a.showDocument(s)
		},
	}
}

func notifySet(a *app) *cobra.Command {
	var file, reason string
	cmd := &cobra.Command{
		Use: "set -f FILE --reason TEXT", Short: "Change who is told of incidents",
		Long: `Replaces the settings by those of a file ("vedette notify spec" explains one).
Secrets are never shown again: a receiver given without its secret keeps the one
that is stored, as long as its name and the place it goes to stay the same.`,
		Example: `  vedette notify spec > notify.yaml    # then edit it
  vedette notify set -f notify.yaml --reason "night shift has a chat now"
  vedette notify test chat --reason "first message"`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return usagef("give the file of settings with -f; \"vedette notify spec\" prints an example")
			}
			s, err := readDocument[operator.NotifySettings](file, "the settings")
			if err != nil {
				return err
			}
			s.Reason = reason
			c, err := a.connect()
			if err != nil {
				return err
			}
			done, err := c.SetNotifySettings(cmd.Context(), s)
			if err != nil {
				return err
			}
			return a.print(done, func(w io.Writer) { fmt.Fprintf(w, "%d receivers are told\n", len(done.Receivers)) })
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "file of settings, YAML or JSON")
	reasonFlag(cmd, &reason)
	return cmd
}

// errNotSent says that a trial message did not arrive.
var errNotSent = errors.New("the message was not taken")

func notifyTest(a *app) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "test RECEIVER --reason TEXT", Short: "Send a trial message to one receiver now", Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			done, err := c.TestReceiver(cmd.Context(), given[0], operator.Reasoned{Reason: reason})
			if err != nil {
				return err
			}
			if !done.Sent {
				return fmt.Errorf("%w: %s", errNotSent, done.Error)
			}
			return a.print(done, func(w io.Writer) { fmt.Fprintf(w, "%s took the message\n", done.Receiver) })
		},
	}
	reasonFlag(cmd, &reason)
	return cmd
}
