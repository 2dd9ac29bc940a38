package main

import (
	"bufio"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/vedette-edge/vedette/controlplane/client"
	"github.com/vedette-edge/vedette/protocol/atomicfile"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// app is what all commands share: where to print, and how to reach the server.
type app struct {
	in       io.Reader
	out, err io.Writer

	// Global flags.
	server, tokenFile, caFile, contextName string
	output                                 string
	keys                                   string
	quiet                                  bool
}

// Forms of output.
const (
	outputTable = "table"
	outputJSON  = "json"
)

func (a *app) globalFlags(root *cobra.Command) {
	f := root.PersistentFlags()
	f.StringVarP(&a.output, "output", "o", outputTable, "form of the output: table or json")
	f.StringVar(&a.server, "server", "", "URL of the server (VEDETTE_SERVER)")
	f.StringVar(&a.tokenFile, "token-file", "", "file with the operator token (VEDETTE_TOKEN holds the token itself)")
	f.StringVar(&a.caFile, "ca", "", "certificate of the CA to trust for an https server, PEM (VEDETTE_CA)")
	f.StringVar(&a.contextName, "context", "", "saved login to use (VEDETTE_CONTEXT)")
	f.StringVar(&a.keys, "keys", "", "publisher's folder with root.json and private keys (VEDETTE_KEYS)")
	f.BoolVarP(&a.quiet, "quiet", "q", false, "no progress bars and no remarks")
	for flag, complete := range map[string]cobra.CompletionFunc{
		"output":  cobra.FixedCompletions([]string{outputTable, outputJSON}, cobra.ShellCompDirectiveNoFileComp),
		"server":  cobra.NoFileCompletions,
		"context": func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) { return a.contextNames() },
	} {
		if err := root.RegisterFlagCompletionFunc(flag, complete); err != nil {
			panic(err) // a flag that this function has not defined
		}
	}
}

// check refuses global flags that make no sense, before anything is done.
func (a *app) check() error {
	if a.output != outputTable && a.output != outputJSON {
		return usagef("output %q is neither table nor json", a.output)
	}
	return nil
}

// json says whether output is for programs.
func (a *app) json() bool { return a.output == outputJSON }

// drawn says whether what is drawn on w is seen by a person.
func (a *app) drawn(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && !a.quiet && !a.json() && term.IsTerminal(int(f.Fd()))
}

// reason is why a command is given: what the flag says or, on a terminal, what
// the person answers.
func (a *app) reason(flag, what string) (string, error) {
	if strings.TrimSpace(flag) != "" {
		return flag, nil
	}
	missing := operator.Errorf(operator.ReasonRequired, "%s: a change of the fleet needs a reason", what).
		WithHint(`say why with --reason "…": it is kept in the ledger`)
	if f, ok := a.in.(*os.File); !ok || !a.drawn(a.err) || !term.IsTerminal(int(f.Fd())) {
		return "", missing
	}
	fmt.Fprintf(plain{a.err}, "Why %s? ", what)
	line, err := bufio.NewReader(io.LimitReader(a.in, operator.MaxReason)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fileError(err)
	}
	if line = strings.TrimSpace(line); line == "" {
		return "", missing
	}
	return line, nil
}

// firstOf is the first text that is not empty.
func firstOf(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}

// connect makes the client of the server that flags, environment or a saved
// login name.
func (a *app) connect() (*client.Client, error) {
	t, err := a.target()
	if err != nil {
		return nil, err
	}
	return t.client()
}

// target is a server and how to be let in.
type target struct {
	server, token string
	ca            []byte // PEM; empty: the system's CAs
}

func (t target) client() (*client.Client, error) {
	o := client.Options{UserAgent: "vedette/" + version}
	if len(t.ca) > 0 {
		o.RootCAs = x509.NewCertPool()
		if !o.RootCAs.AppendCertsFromPEM(t.ca) {
			return nil, operator.Errorf(operator.Invalid, "the CA file holds no certificate").WithHint("give a PEM file with --ca")
		}
	}
	return client.New(t.server, t.token, o)
}

// target joins flags, environment and the saved login, in this order. The token
// of a saved login is only ever sent to the server it was saved for.
func (a *app) target() (target, error) {
	saved, err := a.savedLogin()
	if err != nil {
		return target{}, err
	}
	t := target{server: firstOf(a.server, os.Getenv("VEDETTE_SERVER"))}
	if t.server == "" || sameServer(t.server, saved.Server) {
		t = target{server: saved.Server, token: saved.Token, ca: []byte(saved.CA)}
	}
	if t.server == "" {
		return t, operator.Errorf(operator.Invalid, "no server is named").
			WithHint(`log in once with "vedette login --server URL --token-file FILE", or give --server or VEDETTE_SERVER`)
	}
	token, err := a.givenToken()
	if err != nil {
		return t, err
	}
	t.token = firstOf(token, t.token)
	if path := firstOf(a.caFile, os.Getenv("VEDETTE_CA")); path != "" {
		if t.ca, err = readFile(path, maxSmallFile); err != nil {
			return t, err
		}
	}
	return t, nil
}

func sameServer(a, b string) bool { return strings.TrimRight(a, "/") == strings.TrimRight(b, "/") }

// givenToken is the token of this call, if one is given.
func (a *app) givenToken() (string, error) {
	if a.tokenFile == "" {
		return strings.TrimSpace(os.Getenv("VEDETTE_TOKEN")), nil
	}
	b, err := readFile(a.tokenFile, maxSmallFile)
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(b))
	if token == "" {
		return "", operator.Errorf(operator.Invalid, "the token file %s is empty", a.tokenFile)
	}
	return token, nil
}

// Limits of files that are read whole, bytes.
const (
	maxSmallFile = 1 << 20  // tokens, certificates, configuration
	maxLargeFile = 64 << 20 // schemas, baselines, golden vectors
)

// readFile reads a file of at most limit bytes.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path) //nolint:gosec // a path that the user names
	if err != nil {
		return nil, fileError(err)
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fileError(err)
	}
	if int64(len(b)) > limit {
		return nil, operator.Errorf(operator.TooLarge, "%s is over %s", path, bytesText(limit))
	}
	return b, nil
}

func fileError(err error) error { return operator.Errorf(operator.Invalid, "%w", err) }

// writeFile replaces a file at once: whoever reads it sees the old one or the
// new one, also after a crash.
func writeFile(path string, data []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fileError(err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return fileError(err)
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.Write(data)
	for _, step := range []func() error{func() error { return f.Chmod(mode) }, f.Sync, f.Close} {
		if e := step(); err == nil {
			err = e
		}
	}
	if err == nil {
		err = atomicfile.Rename(f.Name(), path)
	}
	if err != nil {
		return fileError(err)
	}
	return nil
}

// completionTimeout bounds how long a shell waits for names from the server.
const completionTimeout = 2 * time.Second

// complete offers names from the server for the n-th argument.
func (a *app) complete(position int, names func(ctx context.Context, c *client.Client, args []string) ([]string, error)) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) != position {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
		defer cancel()
		c, err := a.connect()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		list, err := names(ctx, c, args)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return list, cobra.ShellCompDirectiveNoFileComp
	}
}
