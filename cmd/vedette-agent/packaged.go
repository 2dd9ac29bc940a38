package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/vedette-edge/vedette/agent/onnx"
)

// What a package brings: a service of a user of its own, and one configuration
// file for all commands.

// service is the unit that the packages install, and serviceUnit its file.
const (
	service     = "vedette-agent"
	serviceUnit = "/usr/lib/systemd/system/vedette-agent.service"
)

// configured gives a command the state directory, the address and the library
// that the configuration file names for `run`, where neither its flags nor the
// environment say otherwise.
func (a *app) configured(cmd *cobra.Command) error {
	s := defaultSettings()
	path := configPath(cmd.Flags(), defaultConfig)
	file, err := readConfig(path, &s)
	if err != nil {
		return missingConfig(err, path)
	}
	if err := file.check(&s); err != nil {
		return err
	}
	if a.library == "" && os.Getenv(onnx.EnvLibrary) == "" {
		a.library = s.OnnxRuntime
	}
	values := map[string]string{"state": s.State, "listen": s.Listen}
	if s.Listen == "-" {
		values = map[string]string{"state": s.State, "socket": s.Socket}
	}
	for name, value := range values {
		f := cmd.Flags().Lookup(name)
		if f == nil || f.Changed || os.Getenv(envOf(name)) != "" {
			continue
		}
		if err := f.Value.Set(value); err != nil {
			return fmt.Errorf("take %s from %s: %w", name, path, err)
		}
	}
	return nil
}

// becomeOwner gives up root for the owner of the state directory, where that is
// somebody else: what root wrote there the service could not read, and what root
// can do there says nothing about the service.
func becomeOwner(state string) error {
	st, err := os.Stat(state)
	if err != nil || os.Geteuid() != 0 {
		return nil //nolint:nilerr // what is missing is made by whoever runs this
	}
	owner, ok := st.Sys().(*syscall.Stat_t)
	if !ok || owner.Uid == 0 {
		return nil
	}
	if err := errors.Join(syscall.Setgroups(groupsOf(owner.Uid)), syscall.Setgid(int(owner.Gid)), syscall.Setuid(int(owner.Uid))); err != nil {
		return fmt.Errorf("become user %d, who owns %s: %w", owner.Uid, state, err)
	}
	return nil
}

// groupsOf is what else the user may: none where no list of users knows it.
func groupsOf(uid uint32) []int {
	u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if err != nil {
		return nil
	}
	names, err := u.GroupIds()
	if err != nil {
		return nil
	}
	var ids []int
	for _, n := range names {
		if id, err := strconv.Atoi(n); err == nil {
			ids = append(ids, id)
		}
	}
	return ids
}

// howToRun is the command that starts the agent on this state.
func howToRun(state string) string {
	if _, err := os.Stat(serviceUnit); err == nil && state == defaultState {
		return "sudo systemctl start " + service
	}
	return "vedette-agent run --state " + state
}

// sumSuffix names the file in which the packages say what the library's SHA-256
// is, as sha256sum writes it.
const sumSuffix = ".sha256"

// intact compares the library with the checksum beside it. Where there is none
// the library is not the package's, and nothing is known of it.
func intact(path string) error {
	sum, err := readBounded(path+sumSuffix, 1<<10)
	if err != nil {
		return nil // there is nothing to compare with
	}
	want, _, _ := strings.Cut(string(sum), " ")
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open library: %w", err)
	}
	defer file.Close()
	h := sha256.New()
	if _, err := io.Copy(h, file); err != nil {
		return fmt.Errorf("read library: %w; the disk may be failing", err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		return fmt.Errorf("%s is not the library that was installed (SHA-256 %s, want %s): it was changed, or the disk is failing; install the package again", path, got, want)
	}
	return nil
}
