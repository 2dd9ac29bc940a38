package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/vedette-edge/vedette/agent"
	"github.com/vedette-edge/vedette/agent/serve"
	profiles "github.com/vedette-edge/vedette/firmware-profiles"
	"github.com/vedette-edge/vedette/protocol"
)

// defaultConfig is read when it is there and --config names no other.
const defaultConfig = "/etc/vedette/agent.yaml"

// maxConfig bounds a configuration file in bytes.
const maxConfig = 1 << 20

// settings are what `run` is told. A field's yaml name is its key in the
// configuration file; deploy/agent.yaml documents every one, and a test holds
// the two together. To add one: a field here, its default in defaultSettings,
// its limits in check, a line in deploy/agent.yaml, and a flag where people
// would try it out by hand. A pointer or a map is what may be left out.
type settings struct {
	State           string      `yaml:"state"`
	Listen          string      `yaml:"listen"`
	Socket          string      `yaml:"socket"`
	Profile         string      `yaml:"profile"`
	OnnxRuntime     string      `yaml:"onnxruntime"`
	MemoryBudgetMiB uint64      `yaml:"memory_budget_mib"`
	OutboxMiB       uint64      `yaml:"outbox_mib"`
	Log             logSettings `yaml:"log"`

	GRPC       string                   `yaml:"grpc"`
	GRPCSocket string                   `yaml:"grpc_socket"`
	Limits     limitSettings            `yaml:"limits"`
	Models     map[string]limitSettings `yaml:"models"`
	Traces     string                   `yaml:"traces"`
	Link       linkSettings             `yaml:"link"`
}

type linkSettings struct {
	Metered string `yaml:"metered"`
}

type logSettings struct {
	Level  string `yaml:"level"`
	Format string `yaml:"format"`
}

func defaultSettings() settings {
	return settings{
		State: defaultState, Listen: serve.DefaultListen, GRPC: "-",
		Log: logSettings{Level: "info", Format: "text"}, Link: linkSettings{Metered: agent.MeteredAuto},
	}
}

// maxBudgetMiB is 16 TiB: more is a number of bytes by mistake.
const maxBudgetMiB = 16 << 20

// Bounds of what may wait for the network: below, one model's windows of a day
// do not fit; above, a device would have no memory left for models.
const (
	minOutboxMiB = 4
	maxOutboxMiB = 1024
)

// check reports settings that cannot be meant, by their path in the file.
func (s *settings) check(report reportFunc) {
	if s.State == "" {
		report("state", "must not be empty: it is the directory that keeps the device's identity and models")
	}
	if s.Listen == "-" && s.Socket == "" {
		report("listen", `"-" turns the address off, and no socket is set: nobody could ask for predictions`)
	}
	if s.Listen != "-" {
		checkAddress(report, "listen", s.Listen)
	}
	if s.MemoryBudgetMiB > maxBudgetMiB {
		report("memory_budget_mib", fmt.Sprintf("%d MiB is more than any device has: is it a number of bytes?", s.MemoryBudgetMiB))
	}
	if s.OutboxMiB != 0 && (s.OutboxMiB < minOutboxMiB || s.OutboxMiB > maxOutboxMiB) {
		report("outbox_mib", fmt.Sprintf("%d MiB: must be %d to %d, or 0 for the firmware profile's share; what waits is held in memory, too", s.OutboxMiB, minOutboxMiB, maxOutboxMiB))
	}
	s.checkDevice(report)
	s.checkServing(report)
	checkOneOf(report, "link.metered", s.Link.Metered, agent.MeteredAuto, protocol.MeteredYes, protocol.MeteredNo)
	checkOneOf(report, "log.level", s.Log.Level, "debug", "info", "warn", "error")
	checkOneOf(report, "log.format", s.Log.Format, "text", "json")
}

// open lists the settings that let others than this device ask for predictions,
// which may be meant.
func (s *settings) open() []string {
	var list []string
	for _, a := range []struct{ path, address string }{{"listen", s.Listen}, {"grpc", s.GRPC}} {
		host, _, err := net.SplitHostPort(a.address)
		if err != nil || host == "localhost" {
			continue
		}
		if ip, err := netip.ParseAddr(host); err != nil || !ip.IsLoopback() {
			list = append(list, fmt.Sprintf("%s: %s can be reached from the network, and asks nobody who they are", a.path, a.address))
		}
	}
	return list
}

// checkDevice reports what names something that is not there: left to the start,
// it would fail again at each that systemd tries.
func (s *settings) checkDevice(report reportFunc) {
	if s.OnnxRuntime != "" {
		if st, err := os.Stat(s.OnnxRuntime); err != nil {
			report("onnxruntime", err.Error())
		} else if !st.Mode().IsRegular() {
			report("onnxruntime", s.OnnxRuntime+" is not a file: it must be ONNX Runtime's shared library")
		}
	}
	if s.Profile == "" {
		return
	}
	all, err := profiles.All()
	if err != nil {
		report("profile", err.Error())
		return
	}
	names := make([]string, len(all))
	for i := range all {
		names[i] = all[i].Name
	}
	if slices.Contains(names, s.Profile) {
		return
	}
	text := fmt.Sprintf("there is no firmware profile %q", s.Profile)
	if similar := alike(s.Profile, names); len(similar) > 0 {
		report("profile", text+": did you mean "+strings.Join(similar, " or ")+"?")
		return
	}
	report("profile", text+"; there are "+strings.Join(names, ", "))
}

// declare adds the flags of those settings that people try out by hand, each
// bound to its field and named to resolve.
func (s *settings) declare(fl *pflag.FlagSet) {
	d := defaultSettings()
	for _, f := range []struct {
		to                           *string
		flag, path, preset, describe string
	}{
		{&s.State, "state", "state", d.State, "directory of the agent's state"},
		{&s.Listen, "listen", "listen", d.Listen, `address to serve predictions on, "-" for none`},
		{&s.Socket, "socket", "socket", d.Socket, "Unix socket to serve predictions on as well"},
		{&s.GRPC, "grpc", "grpc", d.GRPC, `address to serve predictions on over gRPC, "-" for none`},
		{&s.Profile, "profile", "profile", d.Profile, "firmware profile (default: recognised)"},
		{&s.Log.Level, "log-level", "log.level", d.Log.Level, "debug, info, warn or error"},
		{&s.Log.Format, "log-format", "log.format", d.Log.Format, "text or json"},
	} {
		fl.StringVar(f.to, f.flag, f.preset, f.describe)
		bind(fl, f.flag, f.path)
	}
	fl.Uint64Var(&s.MemoryBudgetMiB, "memory-budget", d.MemoryBudgetMiB, "MiB that all models may take together, 0 for the firmware profile's share")
	bind(fl, "memory-budget", "memory_budget_mib")
}

// configFlag adds --config.
func configFlag(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVar(path, "config", defaultConfig, "configuration file")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml") // the flag exists
}

// configPath is the file that --config or its environment variable names.
func configPath(flags *pflag.FlagSet, config string) string {
	if env := os.Getenv(envOf("config")); env != "" && !flags.Changed("config") {
		return env
	}
	return config
}

// settingFlag is the annotation that names the setting of a flag.
const settingFlag = "vedette_setting"

// bind says which setting a flag stands for, by its path in the file.
func bind(flags *pflag.FlagSet, flag, path string) {
	_ = flags.SetAnnotation(flag, settingFlag, []string{path}) // the flag exists
}

// envOf names the environment variable that stands for a flag: VEDETTE_LOG_LEVEL
// for --log-level.
func envOf(flag string) string {
	return "VEDETTE_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// resolve fills s from the weakest source to the strongest: the defaults, the
// configuration file, the environment, the flags. Flags that are bound to a
// setting must point to its field of s, and must have been parsed.
func (s *settings) resolve(flags *pflag.FlagSet, path string) (*configFile, error) {
	var given []override
	flags.VisitAll(func(f *pflag.Flag) {
		if len(f.Annotations[settingFlag]) > 0 {
			given = append(given, overrides(f)...)
		}
	})
	*s = defaultSettings()
	file, err := readConfig(path, s)
	if err != nil {
		err = missingConfig(err, path)
	}
	if file == nil {
		file = &configFile{path: path}
	}
	for _, o := range given { // also without a file: doctor looks on
		if setErr := o.set(); setErr != nil {
			err = errors.Join(err, usagef("%s: %w", o.source, setErr))
		}
		file.setBy(o.setting, o.source)
	}
	if err != nil {
		return nil, err
	}
	return file, file.check(s)
}

// missingConfig judges why a configuration could not be read: the default one may
// be missing, and one that was named makes no sense when it is.
func missingConfig(err error, path string) error {
	switch {
	case !errors.Is(err, fs.ErrNotExist):
		return err
	case path == defaultConfig:
		return nil
	}
	return &usageError{&configError{[]string{err.Error()}}}
}

// override is a setting that the environment or the command line gives.
type override struct {
	setting, source string
	set             func() error
}

// overrides is what the flag or, where it is not given, its environment
// variable says. It has to be asked before the field that both share is filled
// from elsewhere.
func overrides(f *pflag.Flag) []override {
	o := override{setting: f.Annotations[settingFlag][0], source: "--" + f.Name}
	value := f.Value.String()
	switch slice, ok := f.Value.(pflag.SliceValue); {
	case f.Changed && ok:
		values := slice.GetSlice()
		o.set = func() error { return slice.Replace(values) }
	case f.Changed:
		o.set = func() error { return f.Value.Set(value) }
	case os.Getenv(envOf(f.Name)) != "":
		o.source, value = "$"+envOf(f.Name), os.Getenv(envOf(f.Name))
		o.set = func() error { return f.Value.Set(value) }
	default:
		return nil
	}
	return []override{o}
}

// setting is one line of `run --check`.
type setting struct {
	Path  string `json:"setting"`
	Value any    `json:"value"`
	From  string `json:"from"` // default, FILE:LINE, --flag or $VARIABLE
}

// printSettings says what applies and where it comes from.
func (a *app) printSettings(s *settings, file *configFile) error {
	list := listSettings(reflect.ValueOf(*s), "", file)
	return a.print(list, func(out io.Writer) error {
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "SETTING\tVALUE\tFROM")
		for _, l := range list {
			fmt.Fprintf(w, "%s\t%v\t%s\n", l.Path, l.Value, l.From)
		}
		return w.Flush()
	})
}

// listSettings flattens groups, in the order of their fields.
func listSettings(v reflect.Value, path string, file *configFile) []setting {
	var list []setting
	if v.Kind() == reflect.Struct {
		for i := range v.NumField() {
			list = append(list, listSettings(v.Field(i), join(path, yamlName(v.Type().Field(i))), file)...)
		}
		return list
	}
	if v.Kind() == reflect.Map {
		keys := v.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
		for _, key := range keys {
			list = append(list, listSettings(v.MapIndex(key), join(path, key.String()), file)...)
		}
		return list
	}
	return []setting{{Path: path, Value: v.Interface(), From: file.sourceOf(path)}}
}
