package incident

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/mail"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/vedette-edge/vedette/controlplane/delivery"
	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// ErrSettings says that settings cannot be followed.
var ErrSettings = errors.New("notification settings are not valid")

// Bounds of settings.
const (
	maxReceivers  = 32
	maxRecipients = 20
	maxFilters    = 50
	maxGroupWait  = time.Hour
	minRepeat     = time.Minute
	maxRepeat     = 7 * 24 * time.Hour
)

// Ways a mail server is talked to.
const (
	StartTLS = "starttls" // the default
	TLS      = "tls"      // from the first byte, usually port 465
	NoTLS    = "none"     // for a relay on the same machine
)

const settingsName = "settings"

func settingsKey() string { return kvstore.Key(settingsName) }

// SetSettings checks and stores who is told. A secret left empty stays what it
// was, as long as the receiver of that name goes to the same place.
func (b *Board) SetSettings(ctx context.Context, s operator.NotifySettings) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	s = clone(s)
	s.Reason = ""
	for i := range s.Receivers {
		keepSecrets(&s.Receivers[i], receiver(&b.settings, s.Receivers[i].Name))
	}
	if err := check(&s); err != nil {
		return err
	}
	if err := b.put(ctx, settingsKey(), &s); err != nil {
		return err
	}
	b.settings = s
	b.cfg.Change("")
	b.nudge()
	return nil
}

// Settings returns who is told, without secrets. The path of a Slack URL is one.
func (b *Board) Settings() operator.NotifySettings {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := clone(b.settings)
	for i := range s.Receivers {
		r := &s.Receivers[i]
		if r.Webhook != nil {
			r.Webhook.URL, r.Webhook.Secret = delivery.Name(r.Webhook.URL), ""
		}
		if r.Email != nil {
			r.Email.Password = ""
		}
		if r.Slack != nil {
			r.Slack.URL = ""
		}
	}
	return s
}

// clone copies settings through their encoding: what is stored shares nothing
// with what callers hold.
func clone(s operator.NotifySettings) (out operator.NotifySettings) {
	data, err := json.Marshal(s)
	if err == nil {
		err = json.Unmarshal(data, &out)
	}
	if err != nil {
		panic("incident: settings do not survive their encoding: " + err.Error())
	}
	return out
}

func receiver(s *operator.NotifySettings, name string) *operator.Receiver {
	i := slices.IndexFunc(s.Receivers, func(r operator.Receiver) bool { return r.Name == name })
	if i < 0 {
		return nil
	}
	return &s.Receivers[i]
}

// keepSecrets fills in what was not read back. A secret never follows a receiver
// to another place: whoever may change settings could otherwise have it sent
// to themselves.
func keepSecrets(r, held *operator.Receiver) {
	if held == nil {
		return
	}
	if w, old := r.Webhook, held.Webhook; w != nil && old != nil && delivery.Name(w.URL) == delivery.Name(old.URL) {
		if w.URL == delivery.Name(old.URL) {
			w.URL = old.URL // with the query that was not shown
		}
		if w.Secret == "" {
			w.Secret = old.Secret
		}
	}
	if e, old := r.Email, held.Email; e != nil && old != nil && e.Password == "" &&
		e.Server == old.Server && e.Username == old.Username && e.Security == old.Security {
		e.Password = old.Password
	}
	if s, old := r.Slack, held.Slack; s != nil && old != nil && s.URL == "" {
		s.URL = old.URL
	}
}

func refused(format string, a ...any) error {
	return fmt.Errorf("%w: %w", ErrSettings, fmt.Errorf(format, a...))
}

func check(s *operator.NotifySettings) error {
	wait, repeat := time.Duration(s.GroupWait), time.Duration(s.Repeat)
	switch {
	case len(s.Receivers) > maxReceivers:
		return refused("there are %d receivers, at most %d", len(s.Receivers), maxReceivers)
	case wait < 0 || wait > maxGroupWait:
		return refused("group_wait is %v, must be in 0 to %v", wait, maxGroupWait)
	case repeat != 0 && (repeat < minRepeat || repeat > maxRepeat):
		return refused("repeat is %v, must be in %v to %v", repeat, minRepeat, maxRepeat)
	case s.Link != "" && delivery.CheckURL(s.Link) != nil:
		return refused("link %.64q is not the URL of a dashboard", s.Link)
	}
	seen := map[string]bool{}
	for i := range s.Receivers {
		r := &s.Receivers[i]
		if seen[r.Name] {
			return refused("there are two receivers %q", r.Name)
		}
		seen[r.Name] = true
		if err := checkReceiver(r); err != nil {
			return refused("receiver %.64q: %w", r.Name, err)
		}
	}
	return nil
}

var receiverName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

func checkReceiver(r *operator.Receiver) error {
	ways := 0
	for _, given := range []bool{r.Webhook != nil, r.Email != nil, r.Slack != nil} {
		if given {
			ways++
		}
	}
	switch {
	case !receiverName.MatchString(r.Name):
		return errors.New("a name has 1 to 63 of a-z, 0-9 and '-'")
	case ways != 1:
		return fmt.Errorf("it has %d of webhook, email and slack, must have one", ways)
	case !slices.Contains([]string{"", string(Info), string(Warning), string(Critical)}, r.Severity):
		return fmt.Errorf("severity %.32q is not info, warning or critical", r.Severity)
	case len(r.Kinds) > maxFilters || len(r.Models) > maxFilters:
		return fmt.Errorf("it names over %d kinds or models", maxFilters)
	}
	for _, k := range r.Kinds {
		if !slices.Contains(kinds, k) {
			return fmt.Errorf("kind %.32q is none of %v", k, kinds)
		}
	}
	switch {
	case r.Webhook != nil:
		return checkWebhook(r.Webhook)
	case r.Email != nil:
		return checkEmail(r.Email)
	}
	if r.Slack.URL == "" {
		return errors.New("slack needs its url: it is not read back, and there is none to keep")
	}
	return delivery.CheckURL(r.Slack.URL)
}

func checkWebhook(w *operator.NotifyWebhook) error {
	if len(w.Secret) > delivery.MaxSecret {
		return fmt.Errorf("the secret has %d bytes, at most %d", len(w.Secret), delivery.MaxSecret)
	}
	return delivery.CheckURL(w.URL)
}

func checkEmail(e *operator.NotifyEmail) error {
	host, port, err := net.SplitHostPort(e.Server)
	if n, wrong := strconv.Atoi(port); err != nil || host == "" || wrong != nil || n < 1 || n > 65535 {
		return fmt.Errorf("server %.64q is not host:port", e.Server)
	}
	switch {
	case !slices.Contains([]string{"", StartTLS, TLS, NoTLS}, e.Security):
		return fmt.Errorf("security %.32q is not %s, %s or %s", e.Security, StartTLS, TLS, NoTLS)
	case e.Security == NoTLS && e.Password != "" && !loopback(host):
		return errors.New("a password is not sent without TLS but to loopback")
	case e.Username != "" && e.Password == "":
		return errors.New("a user name needs a password: it is kept only for the same server, user and security")
	case e.Username == "" && e.Password != "":
		return errors.New("a password needs a user name")
	case len(e.Username)+len(e.Password) > delivery.MaxSecret:
		return fmt.Errorf("user name and password have over %d bytes", delivery.MaxSecret)
	case len(e.To) == 0 || len(e.To) > maxRecipients:
		return fmt.Errorf("it has %d recipients, must have 1 to %d", len(e.To), maxRecipients)
	}
	for _, a := range append([]string{e.From}, e.To...) {
		if p, err := mail.ParseAddress(a); err != nil || p.Address != a || a != line(a, maxName) {
			return fmt.Errorf("%.64q is not a mail address such as ops@example.org", a)
		}
	}
	return nil
}

// loopback tells whether a host is this machine by its name or address alone.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// place is where a receiver goes, for people.
func place(r *operator.Receiver) string {
	switch {
	case r.Webhook != nil:
		return delivery.Name(r.Webhook.URL)
	case r.Email != nil:
		return fmt.Sprintf("%s by %s", r.Email.To[0], r.Email.Server)
	case r.Slack != nil:
		if u, err := url.Parse(r.Slack.URL); err == nil {
			return u.Scheme + "://" + u.Host
		}
	}
	return "nowhere"
}
