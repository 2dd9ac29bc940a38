package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// config is the file of saved logins. It holds tokens: only its owner reads it.
type config struct {
	Current  string           `json:"current"`
	Contexts map[string]login `json:"contexts"`
}

// login is one saved server.
type login struct {
	Server string `json:"server"`
	Token  string `json:"token"`
	CA     string `json:"ca,omitempty"` // PEM
}

// configPath is where logins are kept.
func configPath() (string, error) {
	if p := os.Getenv("VEDETTE_CONFIG"); p != "" {
		return p, nil
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", operator.Errorf(operator.Invalid, "find the folder for configuration: %w", err).WithHint("name a file in VEDETTE_CONFIG")
	}
	return filepath.Join(dir, "vedette", "config.json"), nil
}

func readConfig() (config, error) {
	c := config{Contexts: map[string]login{}}
	path, err := configPath()
	if err != nil {
		return c, err
	}
	b, err := readFile(path, maxSmallFile)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err != nil {
		return c, operator.Errorf(operator.Invalid, "read saved logins: %w", err).WithHint("remove %s and log in again", path)
	}
	return c, nil
}

func (c config) write() error {
	path, err := configPath()
	if err != nil {
		return err
	}
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return fmt.Errorf("encode logins: %w", err)
	}
	return writeFile(path, append(b, '\n'), 0o600)
}

// savedLogin is the login to use, or an empty one.
func (a *app) savedLogin() (login, error) {
	c, err := readConfig()
	if err != nil {
		return login{}, err
	}
	name := firstOf(a.contextName, os.Getenv("VEDETTE_CONTEXT"))
	if name == "" {
		return c.Contexts[c.Current], nil
	}
	l, ok := c.Contexts[name]
	if !ok {
		return l, operator.Errorf(operator.Invalid, "no login is saved as %q", name).WithHint(`"vedette context list" shows those that are`)
	}
	return l, nil
}

func (a *app) contextNames() ([]string, cobra.ShellCompDirective) {
	c, err := readConfig()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return slices.Sorted(maps.Keys(c.Contexts)), cobra.ShellCompDirectiveNoFileComp
}

func loginCommand(a *app) *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "login --server URL [--token-file FILE]",
		Short: "Save a server and a token for later calls",
		Long: `Checks that the server accepts the token and saves both, in a file that only you
can read. Without --token-file or VEDETTE_TOKEN the token is asked for.

The first token of a server is in the file admin-token of its data directory.`,
		Example: `  vedette login --server http://127.0.0.1:8480 --token-file vedette-data/admin-token`,
		Args:    args(cobra.NoArgs),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.login(cmd, name) },
	}
	cmd.Flags().StringVar(&name, "name", "default", "name of the saved login")
	return cmd
}

func (a *app) login(cmd *cobra.Command, name string) error {
	saved, err := readConfig()
	if err != nil {
		return err
	}
	l, err := a.newLogin()
	if err != nil {
		return err
	}
	c, err := target{server: l.Server, token: l.Token, ca: []byte(l.CA)}.client()
	if err != nil {
		return err
	}
	info, err := c.Server(cmd.Context())
	if err != nil {
		return err
	}
	saved.Contexts[name] = l
	saved.Current = name
	if err := saved.write(); err != nil {
		return err
	}
	return a.print(info.Principal, func(w io.Writer) {
		fmt.Fprintf(w, "logged in to %s as %s, who is %s\n", l.Server, info.Principal.Name, info.Principal.Role)
	})
}

// newLogin gathers a login from flags, environment and the keyboard.
func (a *app) newLogin() (login, error) {
	l := login{Server: strings.TrimRight(firstOf(a.server, os.Getenv("VEDETTE_SERVER")), "/")}
	if l.Server == "" {
		return l, usagef("give the server with --server URL")
	}
	var err error
	if l.Token, err = a.givenToken(); err != nil {
		return l, err
	}
	if l.Token == "" {
		if l.Token, err = a.askToken(); err != nil {
			return l, err
		}
	}
	if path := firstOf(a.caFile, os.Getenv("VEDETTE_CA")); path != "" {
		b, err := readFile(path, maxSmallFile)
		if err != nil {
			return l, err
		}
		l.CA = string(b)
	}
	return l, nil
}

// askToken reads a token from the keyboard without showing it, or a line from
// a pipe.
func (a *app) askToken() (string, error) {
	var line []byte
	var err error
	if f, ok := a.in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		fmt.Fprint(a.err, "Token: ")
		line, err = term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(a.err)
	} else {
		line, err = bufio.NewReader(io.LimitReader(a.in, maxSmallFile)).ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			err = nil
		}
	}
	token := strings.TrimSpace(string(line))
	if err != nil || token == "" {
		return "", operator.Errorf(operator.Invalid, "no token was given").WithHint("give one with --token-file FILE or VEDETTE_TOKEN")
	}
	return token, nil
}

func contextCommand(a *app) *cobra.Command {
	return group("context", "Choose among saved logins", "", contextList(a), contextUse(a), contextRemove(a))
}

func contextList(a *app) *cobra.Command {
	type saved struct {
		Name    string `json:"name"`
		Server  string `json:"server"`
		Current bool   `json:"current"`
	}
	return &cobra.Command{
		Use: "list", Short: "Show saved logins", Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			c, err := readConfig()
			if err != nil {
				return err
			}
			list, rows := []saved{}, [][]string{}
			for _, name := range slices.Sorted(maps.Keys(c.Contexts)) {
				list = append(list, saved{name, c.Contexts[name].Server, name == c.Current})
				rows = append(rows, []string{name, c.Contexts[name].Server, map[bool]string{true: "*"}[name == c.Current]})
			}
			return a.print(list, func(w io.Writer) {
				if len(rows) == 0 {
					none(w, "saved logins")
				}
				grid(w, []string{"name", "server", "current"}, rows)
			})
		},
	}
}

func contextUse(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "use NAME", Short: "Use a saved login from now on", Args: args(cobra.ExactArgs(1)),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) { return a.contextNames() },
		RunE: func(_ *cobra.Command, given []string) error {
			return a.changeConfig(given[0], func(c *config) { c.Current = given[0] })
		},
	}
}

func contextRemove(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "remove NAME", Short: "Forget a saved login", Args: args(cobra.ExactArgs(1)),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) { return a.contextNames() },
		RunE: func(_ *cobra.Command, given []string) error {
			return a.changeConfig(given[0], func(c *config) { delete(c.Contexts, given[0]) })
		},
	}
}

func (a *app) changeConfig(name string, change func(*config)) error {
	c, err := readConfig()
	if err != nil {
		return err
	}
	if _, ok := c.Contexts[name]; !ok {
		return operator.Errorf(operator.Invalid, "no login is saved as %q", name).WithHint(`"vedette context list" shows those that are`)
	}
	change(&c)
	return c.write()
}
