package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vedette-edge/vedette/controlplane/client"
)

// site is one place with cameras behind one router.
type site struct {
	name    string
	devices []string
	api     *router // to the control plane's device API
	mqtt    *router // to its broker
}

// plant is the whole installation: three sites with eight cameras, and the
// control plane they report to.
type plant struct {
	opts   Options
	images []image
	hook   *webhook
	client *client.Client
	ctx    context.Context //nolint:containedctx // the life of the plant's cameras
	stop   context.CancelFunc
	shoot  sync.WaitGroup

	sites []*site
	where addresses // set once, by the first start of the control plane
	storm storm

	power     sync.Mutex        // held while something is switched on or off; guards the fields below, processes and kills
	agents    map[string]*agent // complete from step 2 on
	control   *process
	lostPower int // kills of the control plane
}

// agent is one device's program with the camera in front of it.
type agent struct {
	id      string
	site    *site
	listen  string
	process *process
	camera  *camera
	kills   []time.Time
}

// addresses are what vedette-control leaves in its data directory.
type addresses struct {
	HTTP    string `json:"http"`
	Devices string `json:"devices"`
	MQTT    string `json:"mqtt"`
}

func newPlant(opts Options) (*plant, error) {
	images, err := heldout()
	if err != nil {
		return nil, err
	}
	p := &plant{opts: opts, images: images, agents: map[string]*agent{}}
	p.ctx, p.stop = context.WithCancel(context.Background())
	p.sites = []*site{
		{name: "a", devices: []string{"cam-a1", "cam-a2", "cam-a3"}},
		{name: "b", devices: []string{"cam-b1", "cam-b2", "cam-b3"}},
		{name: "c", devices: []string{"cam-c1", "cam-c2"}},
	}
	if p.hook, err = newWebhook(); err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

// close ends everything in the order in which it would fall silent by itself.
func (p *plant) close() {
	p.stop()
	p.shoot.Wait()
	var ending sync.WaitGroup
	for _, a := range p.agents {
		if a.process != nil {
			ending.Go(func() { p.complain(a.process.stop()) })
		}
	}
	ending.Wait()
	if p.control != nil {
		p.complain(p.control.stop())
	}
	for _, s := range p.sites {
		for _, r := range []*router{s.api, s.mqtt} {
			if r != nil {
				p.complain(r.Close())
			}
		}
	}
	p.complain(p.hook.Close())
}

func (p *plant) complain(err error) {
	if err != nil {
		fmt.Fprintln(p.opts.Log, "     ", err)
	}
}

func (p *plant) path(parts ...string) string {
	return filepath.Join(append([]string{p.opts.Dir}, parts...)...)
}

func (p *plant) program(name string) string { return filepath.Join(p.opts.Bin, name) }

// vedette runs the operator's command line and decodes what it prints.
func (p *plant) vedette(ctx context.Context, into any, args ...string) error {
	env := []string{
		"VEDETTE_SERVER=http://" + p.where.HTTP,
		"VEDETTE_KEYS=" + p.path("publisher"),
	}
	args = append([]string{"--token-file", p.path("control", "admin-token"), "-o", "json"}, args...)
	out, err := call(ctx, env, p.program("vedette"), args...)
	if err != nil {
		return err
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(out, into); err != nil {
		return fmt.Errorf("vedette %s printed what is not JSON: %w", strings.Join(args, " "), err)
	}
	return nil
}

// startControl starts the control plane and waits until it is up.
func (p *plant) startControl(ctx context.Context) error {
	p.power.Lock()
	defer p.power.Unlock()
	if err := p.launchControl(); err != nil {
		return err
	}
	return p.awaitControl(ctx)
}

// launchControl starts the control plane at the addresses it had before. The
// caller holds p.power, as for the two after it.
func (p *plant) launchControl() error {
	listen := func(before string) string {
		if before == "" {
			return "127.0.0.1:0"
		}
		return before
	}
	http := p.opts.HTTP
	if p.where.HTTP != "" || http == "" {
		http = listen(p.where.HTTP)
	}
	told := p.path("control", "addresses.json")
	if err := os.Remove(told); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("forget where the control plane was: %w", err)
	}
	pace := p.opts.Pace
	var err error
	p.control, err = start(p.opts.Dir, "vedette-control", p.program("vedette-control"), "run",
		"--data", p.path("control"), "--http", http, "--devices", listen(p.where.Devices), "--mqtt", listen(p.where.MQTT),
		"--host", "127.0.0.1", "--drift-every", pace.Score.String(), "--drift-max-age", pace.MaxAge.String(),
		"--drift-block", (2 * pace.Window).String(), "--drift-bucket", pace.Window.String())
	return err
}

func (p *plant) awaitControl(ctx context.Context) error {
	return until(ctx, 30*time.Second, "the control plane to be up", func() error {
		if err := p.control.died(); err != nil {
			return permanent{err}
		}
		b, err := os.ReadFile(p.path("control", "addresses.json"))
		if err != nil {
			return err
		}
		var now addresses
		if err := json.Unmarshal(b, &now); err != nil {
			return err
		}
		if p.where == (addresses{}) {
			p.where = now
		}
		return expect(now == p.where, "it listens at %+v, and before at %+v", now, p.where)
	})
}

// killControl ends the control plane as a power cut would.
func (p *plant) killControl() {
	p.control.kill()
	p.lostPower++
}

// connect makes the client the story asks its questions with.
func (p *plant) connect() error {
	token, err := os.ReadFile(p.path("control", "admin-token"))
	if err != nil {
		return fmt.Errorf("read the admin token: %w", err)
	}
	// More tries than usual, to sit out a control plane that is killed twice.
	p.client, err = client.New("http://"+p.where.HTTP, strings.TrimSpace(string(token)), client.Options{Tries: 10})
	return err
}

// openRouters gives every site its own way to the control plane.
func (p *plant) openRouters(ctx context.Context) (err error) {
	for _, s := range p.sites {
		if s.api, err = newRouter(ctx, func() string { return p.where.Devices }); err != nil {
			return err
		}
		if s.mqtt, err = newRouter(ctx, func() string { return p.where.MQTT }); err != nil {
			return err
		}
	}
	return nil
}

// enrol gets one device its identity with a token of its site.
func (p *plant) enrol(ctx context.Context, s *site, id string) error {
	var token struct {
		Token string `json:"token"`
	}
	if err := p.persist(ctx, "a token for "+id, func() error {
		return p.vedette(ctx, &token, "device", "token", "create", "--device", id, "--label", "site="+s.name,
			"--device-api", "https://"+s.api.Addr(), "--mqtt", "mqtts://"+s.mqtt.Addr(), "--reason", "demo")
	}); err != nil {
		return err
	}
	listen, err := freePort(ctx)
	if err != nil {
		return err
	}
	a := &agent{id: id, site: s, listen: listen}
	a.camera = newCamera(id, "http://"+listen, p.images, p.opts.Pace)
	p.power.Lock()
	p.agents[id] = a
	p.power.Unlock()
	return p.persist(ctx, id+" to enrol", func() error {
		_, err := call(ctx, nil, p.program("vedette-agent"), "enrol", token.Token, "--state", p.path(id))
		return err
	})
}

// freePort finds a port nobody listens on. It stays the device's own, so that
// its camera finds it again after a restart.
func freePort(ctx context.Context) (string, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	return l.Addr().String(), l.Close()
}

// switchOn starts a device's program.
func (p *plant) switchOn(a *agent) error {
	p.power.Lock()
	defer p.power.Unlock()
	return p.startAgent(a)
}

// startAgent starts a device's program with a configuration of its own, so that
// none of this machine's takes part. The caller holds p.power.
func (p *plant) startAgent(a *agent) (err error) {
	config := p.path(a.id + ".yaml")
	text := fmt.Sprintf("state: %s\nlisten: %s\n", p.path(a.id), a.listen)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return fmt.Errorf("configure %s: %w", a.id, err)
	}
	a.process, err = start(p.opts.Dir, a.id, p.program("vedette-agent"), "run", "--config", config)
	return err
}

// startCameras lets every camera take pictures.
func (p *plant) startCameras() {
	for _, a := range p.agents {
		p.shoot.Go(func() { a.camera.run(p.ctx) })
		a.camera.start()
	}
}

func (p *plant) resumeAll() {
	for _, a := range p.agents {
		a.camera.start()
	}
}

// pauseAll stops all cameras; when it returns, every request is answered.
func (p *plant) pauseAll(ctx context.Context) {
	for _, a := range p.agents {
		a.camera.pause(ctx)
	}
}

// crash kills a device as a power cut would, and switches it on again.
func (p *plant) crash(id string) error {
	p.power.Lock()
	defer p.power.Unlock()
	a := p.agents[id]
	a.camera.powerCut()
	a.process.kill()
	a.kills = append(a.kills, time.Now())
	return p.startAgent(a)
}

func (p *plant) at(name string) *site {
	i := slices.IndexFunc(p.sites, func(s *site) bool { return s.name == name })
	return p.sites[i]
}

// ids are all devices, sorted.
func (p *plant) ids() []string { return slices.Sorted(maps.Keys(p.agents)) }

// anyDied reports a program that ended by itself.
func (p *plant) anyDied() error {
	p.power.Lock()
	defer p.power.Unlock()
	errs := []error{p.storm.err}
	if p.control != nil {
		errs = append(errs, p.control.died())
	}
	for _, a := range p.agents {
		if a.process != nil {
			errs = append(errs, a.process.died())
		}
	}
	return errors.Join(errs...)
}

// failures sums the requests that cameras got no answer to.
func (p *plant) failures() (n uint64, last string) {
	for _, a := range p.agents {
		t := a.camera.tally()
		n += t.Failed
		if t.Last != "" {
			last = a.id + ": " + t.Last
		}
	}
	return n, last
}

func (p *plant) whereToLook() string {
	return fmt.Sprintf("The dashboard is at http://%s ; sign in with the token in %s", p.where.HTTP, p.path("control", "admin-token"))
}

// permanent is an error that waiting does not mend.
type permanent struct{ error }

// until asks again and again, until the answer is nil, an error is permanent,
// or the time is over; then the last answer is the error.
func until(whole context.Context, most time.Duration, what string, ask func() error) error {
	ctx, cancel := context.WithTimeout(whole, most)
	defer cancel()
	tick := time.NewTicker(150 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask()
		var stop permanent
		switch {
		case err == nil:
			return nil
		case errors.As(err, &stop):
			return stop.error
		}
		select {
		case <-ctx.Done():
			if whole.Err() != nil {
				return fmt.Errorf("interrupted while it waited for %s", what)
			}
			return fmt.Errorf("waited %s for %s: %w", most, what, err)
		case <-tick.C:
		}
	}
}
