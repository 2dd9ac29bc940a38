package incident

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/smtp"
	"net/textproto"
	"strings"
	"time"

	"github.com/vedette-edge/vedette/controlplane/delivery"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// errNoTLS says that a mail server offers no encryption.
var errNoTLS = errors.New(`the mail server offers no STARTTLS: use a port that does, or "security: none" for a relay on this machine`)

// mailer sends by SMTP.
type mailer struct {
	dialer *net.Dialer
	roots  *tls.Config // nil: those of the system
}

// send hands a message to a mail server once. Answers from 500 on are refusals
// for good.
func (s *mailer) send(ctx context.Context, e *operator.NotifyEmail, m *Message) error {
	ctx, cancel := context.WithTimeout(ctx, 3*delivery.SendTimeout) // five round trips, and servers that delay on purpose
	defer cancel()
	host, _, err := net.SplitHostPort(e.Server)
	if err != nil {
		return err
	}
	conn, err := s.dialer.DialContext(ctx, "tcp", e.Server)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if e.Security == TLS {
		conn = tls.Client(conn, s.tls(host))
	}
	c, err := smtp.NewClient(conn, host)
	if err != nil {
		_ = conn.Close()
		return fmt.Errorf("greet: %w", mailError(err))
	}
	defer func() { _ = c.Close() }()
	if err := s.talk(c, host, e, m); err != nil {
		return mailError(err)
	}
	return nil
}

func (s *mailer) tls(host string) *tls.Config {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.roots != nil {
		c = s.roots.Clone()
	}
	c.ServerName = host
	return c
}

func (s *mailer) talk(c *smtp.Client, host string, e *operator.NotifyEmail, m *Message) error {
	if e.Security == "" || e.Security == StartTLS {
		if ok, _ := c.Extension("STARTTLS"); !ok {
			return errNoTLS
		}
		if err := c.StartTLS(s.tls(host)); err != nil {
			return fmt.Errorf("start TLS: %w", err)
		}
	}
	if e.Username != "" {
		if err := c.Auth(smtp.PlainAuth("", e.Username, e.Password, host)); err != nil {
			return fmt.Errorf("sign in: %w", err)
		}
	}
	if err := c.Mail(e.From); err != nil {
		return fmt.Errorf("name the sender: %w", err)
	}
	for _, to := range e.To {
		if err := c.Rcpt(to); err != nil {
			return fmt.Errorf("name the recipient %s: %w", to, err)
		}
	}
	w, err := c.Data()
	if err != nil {
		return fmt.Errorf("begin the message: %w", err)
	}
	if _, err := w.Write(letter(e, m)); err != nil {
		return fmt.Errorf("write the message: %w", err)
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("end the message: %w", err)
	}
	_ = c.Quit() // it was taken already
	return nil
}

// mailError makes an answer that will not change a refusal.
func mailError(err error) error {
	if a, ok := errors.AsType[*textproto.Error](err); ok && a.Code >= 500 {
		return fmt.Errorf("%w: %w", errForGood, err)
	}
	return err
}

// letter is a message as mail. Headers are made of single lines and encoded
// where they must be, so nothing in an incident can add one.
func letter(e *operator.NotifyEmail, m *Message) []byte {
	var b bytes.Buffer
	domain := e.From[strings.LastIndexByte(e.From, '@')+1:]
	for _, h := range [][2]string{
		{"From", "Vedette <" + e.From + ">"},
		{"To", strings.Join(e.To, ", ")},
		{"Subject", mime.QEncoding.Encode("utf-8", line(m.Title, maxTitle))},
		{"Date", m.At.Format(time.RFC1123Z)},
		{"Message-ID", "<" + m.ID + "@" + domain + ">"},
		{"MIME-Version", "1.0"},
		{"Content-Type", "text/plain; charset=utf-8"},
		{"Content-Transfer-Encoding", "quoted-printable"},
		{"Auto-Submitted", "auto-generated"},
	} {
		b.WriteString(h[0] + ": " + h[1] + "\r\n")
	}
	b.WriteString("\r\n")
	q := quotedprintable.NewWriter(&b)
	_, _ = q.Write([]byte(m.Text)) // a buffer takes all
	_ = q.Close()
	return b.Bytes()
}
