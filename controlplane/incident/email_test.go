package incident

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/http"
	"net/http/httptest"
	"net/mail"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/controlplane/delivery"
	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// postOffice is a small mail server on loopback.
type postOffice struct {
	listener net.Listener
	config   *tls.Config // nil: it offers no STARTTLS
	roots    *tls.Config // what its clients trust
	refuse   string      // answers RCPT, if not empty
	letters  chan letterTaken
}

type letterTaken struct {
	from, auth string
	to         []string
	data       string
	encrypted  bool
}

func newPostOffice(t *testing.T, encrypted bool) *postOffice {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &postOffice{listener: l, letters: make(chan letterTaken, 8)}
	if encrypted {
		s := httptest.NewTLSServer(http.NotFoundHandler()) // for its certificate
		p.config = &tls.Config{Certificates: s.TLS.Certificates, MinVersion: tls.VersionTLS12}
		pool := x509.NewCertPool()
		pool.AddCert(s.Certificate())
		p.roots = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
		s.Close()
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.serve(c)
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-ended })
	return p
}

// serve holds one conversation.
func (p *postOffice) serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	in, got := bufio.NewReader(c), letterTaken{}
	say := func(s string) { fmt.Fprintf(c, "%s\r\n", s) }
	say("220 post.example")
	for {
		text, err := in.ReadString('\n')
		if err != nil {
			return
		}
		text = strings.TrimRight(text, "\r\n")
		switch verb, rest, _ := strings.Cut(text, " "); strings.ToUpper(verb) {
		case "EHLO":
			if p.config != nil && !got.encrypted {
				say("250-post.example\r\n250 STARTTLS")
			} else {
				say("250-post.example\r\n250 AUTH PLAIN")
			}
		case "STARTTLS":
			say("220 go on")
			secure := tls.Server(c, p.config)
			c, in, got.encrypted = secure, bufio.NewReader(secure), true
			say = func(s string) { fmt.Fprintf(secure, "%s\r\n", s) }
		case "AUTH":
			_, code, _ := strings.Cut(rest, " ")
			plain, _ := base64.StdEncoding.DecodeString(code)
			got.auth = strings.ReplaceAll(string(plain), "\x00", "|")
			say("235 welcome")
		case "MAIL":
			got.from = rest
			say("250 ok")
		case "RCPT":
			if p.refuse != "" {
				say(p.refuse)
				continue
			}
			got.to = append(got.to, rest)
			say("250 ok")
		case "DATA":
			say("354 go on")
			var b strings.Builder
			for {
				text, err := in.ReadString('\n')
				if err != nil || text == ".\r\n" {
					break
				}
				b.WriteString(text)
			}
			got.data = b.String()
			p.letters <- got
			say("250 taken")
		case "QUIT":
			say("221 bye")
			return
		default:
			say("500 what?")
		}
	}
}

func (p *postOffice) receiver() operator.Receiver {
	return operator.Receiver{Name: "mail", Email: &operator.NotifyEmail{
		To: []string{"ops@example.org", "night@example.org"}, From: "vedette@example.org", Server: p.listener.Addr().String(), Security: NoTLS,
	}}
}

func mailBoard(t *testing.T, p *postOffice, r operator.Receiver) *Board {
	t.Helper()
	b := board(t, kvstore.NewMemory(), Config{Link: "https://vedette.example"})
	b.mail.roots = p.roots
	if err := b.SetSettings(t.Context(), operator.NotifySettings{Receivers: []operator.Receiver{r}}); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestMailWithTLSAndPassword(t *testing.T) {
	p := newPostOffice(t, true)
	r := p.receiver()
	r.Email.Security, r.Email.Username, r.Email.Password = "", "vedette", "hunter2"
	if err := mailBoard(t, p, r).Try(t.Context(), start, "mail", "ada"); err != nil {
		t.Fatal(err)
	}
	got := <-p.letters
	if !got.encrypted || got.auth != "|vedette|hunter2" || len(got.to) != 2 || !strings.Contains(got.from, "vedette@example.org") {
		t.Errorf("got %+v", got)
	}
}

func TestPasswordIsNotSentInTheClear(t *testing.T) {
	p := newPostOffice(t, false)
	r := p.receiver()
	r.Email.Security = ""
	if err := mailBoard(t, p, r).Try(t.Context(), start, "mail", "ada"); !errors.Is(err, errNoTLS) {
		t.Errorf("without STARTTLS: got %v, want errNoTLS", err)
	}
	q := newPostOffice(t, true)
	r = q.receiver()
	r.Email.Security = StartTLS
	b := mailBoard(t, q, r)
	b.mail.roots = nil // nobody vouches for this server
	if err := b.Try(t.Context(), start, "mail", "ada"); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("unknown certificate: got %v", err)
	}
}

func TestNothingAddsAHeader(t *testing.T) {
	p := newPostOffice(t, false)
	b := mailBoard(t, p, p.receiver())
	c := cause("a")
	c.Summary = "drift\r\nBcc: evil@example.org\r\n\r\n<b>now"
	c.Detail = "line one\r\n.\r\nMAIL FROM:<evil@example.org>\nÜber 3 sd"
	c, err := c.clean()
	if err != nil {
		t.Fatal(err)
	}
	r := p.receiver()
	m := compose("notice-1", start, []due{{open(start, c, nil, 0), PhaseOpen, start}}, "https://vedette.example")
	if err := b.tell(t.Context(), &r, &m); err != nil {
		t.Fatal(err)
	}
	got, err := mail.ReadMessage(strings.NewReader((<-p.letters).data))
	if err != nil {
		t.Fatal(err)
	}
	title, err := new(mime.WordDecoder).DecodeHeader(got.Header.Get("Subject"))
	if err != nil || title != m.Title || !strings.Contains(title, "Bcc: evil") || got.Header.Get("Bcc") != "" || len(got.Header) != 9 {
		t.Errorf("subject %q, %v, headers %v", title, err, got.Header)
	}
	body, err := io.ReadAll(quotedprintable.NewReader(got.Body))
	if text := strings.ReplaceAll(string(body), "\r\n", "\n"); err != nil || strings.TrimSpace(text) != m.Text || !strings.Contains(text, "Über 3 sd") {
		t.Errorf("body: got %v\n%s\nwant\n%s", err, text, m.Text)
	}
	if got.Header.Get("Message-ID") != "<notice-1@example.org>" {
		t.Errorf("message id: got %q", got.Header.Get("Message-ID"))
	}
}

func TestMailRefusedForGood(t *testing.T) {
	for answer, forGood := range map[string]bool{"550 no such mailbox": true, "451 later": false} {
		p := newPostOffice(t, false)
		p.refuse = answer
		err := mailBoard(t, p, p.receiver()).Try(t.Context(), start, "mail", "ada")
		if err == nil || errors.Is(err, errForGood) != forGood || !strings.Contains(err.Error(), "recipient") {
			t.Errorf("%s: got %v", answer, err)
		}
	}
}

func TestMailToLinkLocalIsNotDialled(t *testing.T) {
	p := newPostOffice(t, false)
	r := p.receiver()
	r.Email.Server = "169.254.169.254:25"
	if err := mailBoard(t, p, r).Try(t.Context(), start, "mail", "ada"); !errors.Is(err, delivery.ErrLinkLocal) {
		t.Errorf("got %v, want ErrLinkLocal", err)
	}
}
