package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/agent/serve"
	"github.com/vedette-edge/vedette/controlplane/client"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// plant is a control plane with its publisher, as programs of their own.
type plant struct {
	t      *testing.T
	bin    string
	dir    string
	where  addresses
	server *program
	client *client.Client
}

// addresses is what a control plane leaves in its data directory.
type addresses struct {
	HTTP    string `json:"http"`
	Devices string `json:"devices"`
	MQTT    string `json:"mqtt"`
}

// newPlant starts a control plane on free ports and installs a root of trust.
func newPlant(t *testing.T) *plant {
	t.Helper()
	p := &plant{t: t, bin: bin(t), dir: t.TempDir()}
	p.server = p.start("vedette-control", "run", "--data", p.path("control"), "--host", "127.0.0.1",
		"--http", "127.0.0.1:0", "--devices", "127.0.0.1:0", "--mqtt", "127.0.0.1:0")
	p.eventually(30*time.Second, "the control plane to be up", func() error {
		if err := p.server.died(); err != nil {
			return err
		}
		b, err := os.ReadFile(p.path("control", "addresses.json"))
		if err != nil {
			return err
		}
		return json.Unmarshal(b, &p.where)
	})
	token := strings.TrimSpace(p.read("control", "admin-token"))
	var err error
	if p.client, err = client.New("http://"+p.where.HTTP, token, client.Options{}); err != nil {
		t.Fatal(err)
	}
	p.vedette("key", "init").ok()
	return p
}

func (p *plant) path(parts ...string) string {
	return filepath.Join(append([]string{p.dir}, parts...)...)
}

func (p *plant) read(parts ...string) string {
	p.t.Helper()
	b, err := os.ReadFile(p.path(parts...))
	if err != nil {
		p.t.Fatal(err)
	}
	return string(b)
}

func (p *plant) write(content []byte, parts ...string) string {
	p.t.Helper()
	path := p.path(parts...)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		p.t.Fatal(err)
	}
	return path
}

// command prepares a program that sees nothing of this machine's own settings.
func (p *plant) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(p.bin, name), args...)
	cmd.Dir = p.dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + p.dir, "XDG_CONFIG_HOME=" + p.dir, "TMPDIR=" + os.TempDir(),
		"VEDETTE_SERVER=http://" + p.where.HTTP, "VEDETTE_KEYS=" + p.path("keys"),
	}
	if library := os.Getenv("VEDETTE_ONNXRUNTIME"); library != "" {
		cmd.Env = append(cmd.Env, "VEDETTE_ONNXRUNTIME="+library)
	}
	return cmd
}

// outcome is what a person sees of a command that ended.
type outcome struct {
	t           *testing.T
	line        string
	code        int
	out, errOut string
}

// run runs a program to its end.
func (p *plant) run(name string, args ...string) outcome {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), time.Minute)
	defer cancel()
	cmd := p.command(ctx, name, args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		p.t.Fatalf("%s: %v", name, err)
	}
	return outcome{p.t, name + " " + strings.Join(args, " "), cmd.ProcessState.ExitCode(), out.String(), errOut.String()}
}

// vedette runs the operator's command line as the administrator.
func (p *plant) vedette(args ...string) outcome {
	p.t.Helper()
	return p.run("vedette", append([]string{"--token-file", p.path("control", "admin-token")}, args...)...)
}

// ok fails the test unless the command succeeded, and returns what it printed.
func (o outcome) ok() string {
	o.t.Helper()
	if o.code != 0 {
		o.t.Fatalf("%s: exit code %d\n%s%s", o.line, o.code, o.out, o.errOut)
	}
	return o.out
}

// refused checks that the command failed as what was refused does (1) and that
// its message holds every part: what is wrong, and what to do next.
func (o outcome) refused(parts ...string) {
	o.t.Helper()
	if o.code != 1 {
		o.t.Errorf("%s: exit code %d, want 1\n%s%s", o.line, o.code, o.out, o.errOut)
	}
	for _, part := range parts {
		if !strings.Contains(o.errOut, part) {
			o.t.Errorf("%s: the message lacks %q:\n%s", o.line, part, o.errOut)
		}
	}
}

// program runs until it is stopped, at the latest with the test.
type program struct {
	t    *testing.T
	log  string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // how; read after done
}

func (p *plant) start(name string, args ...string) *program {
	p.t.Helper()
	return p.launch(name, p.command(context.Background(), name, args...))
}

// launch starts a prepared program, whose log bears the name.
func (p *plant) launch(name string, cmd *exec.Cmd) *program {
	p.t.Helper()
	log, err := os.CreateTemp(p.dir, name+"-*.log")
	if err != nil {
		p.t.Fatal(err)
	}
	defer log.Close() // the child holds its own copy
	r := &program{t: p.t, log: log.Name(), cmd: cmd, done: make(chan struct{})}
	r.cmd.Stdout, r.cmd.Stderr = log, log
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := r.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	go func() { r.err = r.cmd.Wait(); close(r.done) }()
	p.t.Cleanup(r.kill)
	return r
}

// kill is kill -9.
func (r *program) kill() {
	_ = r.cmd.Process.Kill() // it may have ended already
	<-r.done
}

// stop ends the program as a service manager does.
func (r *program) stop() {
	r.t.Helper()
	_ = r.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-r.done:
	case <-time.After(20 * time.Second):
		r.t.Errorf("%s does not end\n%s", r.cmd.Path, r.said())
	}
	if r.err != nil {
		r.t.Errorf("%s: %v\n%s", r.cmd.Path, r.err, r.said())
	}
}

func (r *program) said() string {
	b, err := os.ReadFile(r.log)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// died is an error when the program has ended.
func (r *program) died() error {
	select {
	case <-r.done:
		return stop{fmt.Errorf("%s ended: %w\n%s", r.cmd.Path, r.err, r.said())}
	default:
		return nil
	}
}

// stop is an error that waiting does not mend.
type stop struct{ error }

// eventually asks until the answer is nil. Other processes give no other sign.
func (p *plant) eventually(most time.Duration, what string, ask func() error) {
	p.t.Helper()
	p.watch(25*time.Millisecond, most, what, ask)
}

func (p *plant) watch(every, most time.Duration, what string, ask func() error) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), most)
	defer cancel()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		err := ask()
		if err == nil {
			return
		}
		if _, hopeless := errors.AsType[stop](err); hopeless {
			p.t.Fatalf("waiting for %s: %v", what, err)
		}
		select {
		case <-ctx.Done():
			p.t.Fatalf("waited %v for %s: %v", most, what, err)
		case <-tick.C:
		}
	}
}

// models is where the demo's models are.
func models(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("..", "..", "deploy", "demo", "models"))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// profiled makes a folder to publish of the demo's digits model of a version.
func (p *plant) profiled(version, folder string) string {
	p.t.Helper()
	name := filepath.Join(models(p.t), "digits-"+version)
	to := p.path(folder)
	if err := os.MkdirAll(to, 0o700); err != nil {
		p.t.Fatal(err)
	}
	graph, err := os.ReadFile(name + ".onnx")
	if err != nil {
		p.t.Fatal(err)
	}
	p.run("vedette-agent", "profile", p.write(graph, folder, "digits.onnx"), "--rows", name+".train.csv",
		"--expected", name+".expected.csv", "--condition", "condition", "--to", to).ok()
	return to
}

// published publishes digits of a version under that version's name.
func (p *plant) published(version string) release.Digest {
	p.t.Helper()
	p.vedette("model", "push", p.profiled(version, "digits-"+version), "--model", "digits", "--version", version).ok()
	v, err := p.client.Version(p.t.Context(), "digits", version)
	if err != nil {
		p.t.Fatal(err)
	}
	return v.Release
}

// rollOut brings a version to all devices at once and does not wait for it.
func (p *plant) rollOut(version string) (id string) {
	p.t.Helper()
	soak, all := release.Duration(time.Second), 1.0
	ro, err := p.client.CreateRollout(p.t.Context(), operator.RolloutCreate{
		Spec: operator.RolloutSpec{
			Model: "digits", Version: version,
			Waves: []operator.WaveSpec{{Percent: 100, Soak: &soak, Quorum: all}},
			Gates: []operator.GateSpec{{Kind: "errors", Inconclusive: "pass"}},
		},
		Reason: "test", Start: true,
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return ro.ID
}

// ends waits until a rollout is in a state.
func (p *plant) ends(id string, want operator.RolloutState) (ro *operator.Rollout) {
	p.t.Helper()
	p.eventually(30*time.Second, "the rollout to be "+string(want), func() (err error) {
		if ro, err = p.client.Rollout(p.t.Context(), id); err == nil && ro.State != want {
			err = fmt.Errorf("it is %s: %s", ro.State, ro.Cause)
		}
		return err
	})
	return ro
}

// camera is an agent with its state directory.
type camera struct {
	*plant

	id, state, listen string
	agent             *program
	rows              uint64 // answered so far
}

// token makes an enrolment token for a device. Flags are those of the command.
func (p *plant) token(id string, flags ...string) string {
	p.t.Helper()
	args := append([]string{"device", "token", "create", "-q", "--device", id}, flags...)
	return strings.TrimSpace(p.vedette(args...).ok())
}

// enrolled gets a device its identity in a state directory.
func (p *plant) enrolled(id, state string, flags ...string) *camera {
	p.t.Helper()
	p.run("vedette-agent", "enrol", p.token(id, flags...), "--state", state).ok()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		p.t.Fatal(err)
	}
	defer l.Close()
	return &camera{plant: p, id: id, state: state, listen: l.Addr().String()}
}

// boot starts the agent and waits until it answers.
func (c *camera) boot() {
	c.t.Helper()
	config := c.write([]byte("state: "+c.state+"\nlisten: "+c.listen+"\n"), c.id+".yaml")
	c.agent = c.start("vedette-agent", "run", "--config", config)
	c.eventually(20*time.Second, c.id+" to answer", func() error {
		if err := c.agent.died(); err != nil {
			return err
		}
		_, err := c.status()
		return err
	})
}

func (c *camera) status() (*serve.Status, error) {
	res, err := http.Get("http://" + c.listen + "/status")
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	s := &serve.Status{}
	return s, json.NewDecoder(res.Body).Decode(s)
}

// update is the update of digits as the agent tells it.
func (c *camera) update() (serve.Update, error) {
	s, err := c.status()
	if err != nil {
		return serve.Update{}, err
	}
	for _, u := range s.Agent.Updates {
		if u.Model == "digits" {
			return u, nil
		}
	}
	return serve.Update{}, nil
}

// serves waits until the device answers with a release.
func (c *camera) serves(most time.Duration, want release.Digest) {
	c.t.Helper()
	c.eventually(most, c.id+" to serve "+want.Short(), func() error {
		u, err := c.update()
		if err != nil {
			return errors.Join(err, c.agent.died())
		}
		if u.Active != want.String() {
			return fmt.Errorf("update is %+v", u)
		}
		return c.infer()
	})
}

// online waits until the control plane sees the device.
func (c *camera) online() {
	c.t.Helper()
	c.eventually(20*time.Second, c.id+" to be online", func() error {
		got, err := c.client.Device(c.t.Context(), c.id)
		if err != nil {
			return err
		}
		if got.Presence != operator.Online {
			return fmt.Errorf("it is %s", got.Presence)
		}
		return nil
	})
}

// infer has ten images read, and counts them when they were.
func (c *camera) infer() error {
	const rows = 10
	body := fmt.Sprintf(`{"inputs":[{"name":"X","datatype":"FP32","shape":[%d,64],"data":[%s0]}]}`, rows, strings.Repeat("0,", rows*64-1))
	res, err := http.Post("http://"+c.listen+"/v2/models/digits/infer", "application/json", strings.NewReader(body))
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if answer, _ := io.ReadAll(res.Body); res.StatusCode != http.StatusOK {
		return fmt.Errorf("infer: %s: %s", res.Status, answer)
	}
	c.rows += rows
	return nil
}

// serverRows is what the control plane counted of the device.
func (c *camera) serverRows() (rows, lost uint64, err error) {
	totals, err := c.client.Totals(c.t.Context(), operator.TotalQuery{Device: c.id})
	if err != nil {
		return 0, 0, err
	}
	for _, t := range totals.Items {
		rows += t.Rows
	}
	for _, l := range totals.Lost {
		lost += l.Rows
	}
	return rows, lost, nil
}

// settings make devices report and count at the pace of a test.
func (p *plant) settings() {
	p.t.Helper()
	second := release.Duration(time.Second)
	if _, err := p.client.SetSettings(p.t.Context(), operator.Settings{
		Window: second, Report: second, Snapshot: second, Reason: "a test has no five minutes",
	}); err != nil {
		p.t.Fatal(err)
	}
}
