package incident

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

func hookTo(url, secret string) operator.Receiver {
	return operator.Receiver{Name: "ops", Webhook: &operator.NotifyWebhook{URL: url, Secret: secret}}
}

func mailTo(change func(*operator.NotifyEmail)) operator.Receiver {
	e := &operator.NotifyEmail{To: []string{"ops@example.org"}, From: "v@example.org", Server: "mail.example:587", Username: "v", Password: "hunter2"}
	change(e)
	return operator.Receiver{Name: "mail", Email: e}
}

func with(r ...operator.Receiver) operator.NotifySettings {
	return operator.NotifySettings{Receivers: r}
}

func TestSettingsAreChecked(t *testing.T) {
	b := board(t, kvstore.NewMemory(), Config{})
	nothing := func(*operator.NotifyEmail) {}
	for name, s := range map[string]operator.NotifySettings{
		"no name":           with(operator.Receiver{Slack: &operator.NotifySlack{URL: "https://x"}}),
		"no way":            with(operator.Receiver{Name: "a"}),
		"two ways":          with(operator.Receiver{Name: "a", Slack: &operator.NotifySlack{URL: "https://x"}, Webhook: &operator.NotifyWebhook{URL: "https://x"}}),
		"twice":             with(hookTo("http://a", ""), hookTo("http://b", "")),
		"file":              with(hookTo("file:///etc/passwd", "")),
		"slack nowhere":     with(operator.Receiver{Name: "a", Slack: &operator.NotifySlack{}}),
		"severity":          with(operator.Receiver{Name: "a", Severity: "bad", Webhook: &operator.NotifyWebhook{URL: "http://a"}}),
		"kind":              with(operator.Receiver{Name: "a", Kinds: []string{"drfit"}, Webhook: &operator.NotifyWebhook{URL: "http://a"}}),
		"long secret":       with(hookTo("http://a", strings.Repeat("s", 2000))),
		"no port":           with(mailTo(func(e *operator.NotifyEmail) { e.Server = "mail.example" })),
		"security":          with(mailTo(func(e *operator.NotifyEmail) { e.Security = "ssl" })),
		"clear password":    with(mailTo(func(e *operator.NotifyEmail) { e.Security = NoTLS })),
		"no password":       with(mailTo(func(e *operator.NotifyEmail) { e.Password = "" })),
		"no user":           with(mailTo(func(e *operator.NotifyEmail) { e.Username = "" })),
		"nobody":            with(mailTo(func(e *operator.NotifyEmail) { e.To = nil })),
		"header in address": with(mailTo(func(e *operator.NotifyEmail) { e.From = "a@b\r\nBcc: c@d" })),
		"name in address":   with(mailTo(func(e *operator.NotifyEmail) { e.To = []string{"Ops <ops@example.org>"} })),
		"repeat":            {Repeat: release.Duration(time.Second)},
		"group wait":        {GroupWait: -1},
		"link":              {Link: "javascript:alert(1)"},
		"too many":          with(make([]operator.Receiver, maxReceivers+1)...),
	} {
		if err := b.SetSettings(t.Context(), s); !errors.Is(err, ErrSettings) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: got %v, want ErrSettings", name, err)
		}
	}
	if err := b.SetSettings(t.Context(), with(mailTo(nothing), hookTo("https://h/x?token=t", "s3cret"))); err != nil {
		t.Error(err)
	}
}

func TestSecretsStayAndDoNotFollow(t *testing.T) {
	store := kvstore.NewMemory()
	b := board(t, store, Config{})
	set := func(r ...operator.Receiver) {
		t.Helper()
		if err := b.SetSettings(t.Context(), with(r...)); err != nil {
			t.Fatal(err)
		}
	}
	nothing := func(*operator.NotifyEmail) {}
	chat := operator.Receiver{Name: "chat", Slack: &operator.NotifySlack{URL: "https://chat.example/T0KEN"}}
	set(hookTo("https://user:pw@h/x?token=t0k", "s3cret"), mailTo(nothing), chat)
	shown := b.Settings()
	text, err := json.Marshal(shown)
	for _, secret := range []string{"s3cret", "hunter2", "T0KEN", "t0k", "pw"} {
		if err != nil || strings.Contains(string(text), secret) {
			t.Errorf("%s is shown: %s", secret, text)
		}
	}
	set(shown.Receivers...) // as it was read
	b = board(t, store, Config{})
	if r := b.settings.Receivers; r[0].Webhook.Secret != "s3cret" || !strings.Contains(r[0].Webhook.URL, "t0k") || r[1].Email.Password != "hunter2" || r[2].Slack.URL != chat.Slack.URL {
		t.Errorf("what was read and set again: got %+v %+v %+v", r[0].Webhook, r[1].Email, r[2].Slack)
	}
	set(hookTo("https://evil.example/x", ""), chat)
	if s := b.settings.Receivers[0].Webhook.Secret; s != "" {
		t.Errorf("the secret went to another place: %q", s)
	}
	err = b.SetSettings(t.Context(), with(mailTo(func(e *operator.NotifyEmail) { e.Server, e.Password = "evil.example:587", "" })))
	if !errors.Is(err, ErrSettings) {
		t.Errorf("the password went to another server: %v", err)
	}
}
