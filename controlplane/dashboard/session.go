package dashboard

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
)

const (
	cookieName = "vedette_session"
	keySize    = 32
	maxToken   = 512 // bytes of an operator token that are looked at
	csrfField  = "csrf"
)

// session is what the cookie holds. It is nowhere else: the server keeps
// nothing per session, so their number costs it nothing.
type session struct {
	ID      string    `json:"id"`
	Token   string    `json:"token"`
	Expires time.Time `json:"expires"`
}

// LoadKey reads the key that seals sessions, and makes it when the file does
// not exist. Who can read the file can forge sessions but no tokens, and a
// session is only as good as the token in it.
func LoadKey(path string) ([]byte, error) {
	key, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return makeKey(path)
	}
	if err == nil && len(key) != keySize {
		err = fmt.Errorf("%d bytes, want %d: remove the file to have a new one made", len(key), keySize)
	}
	if err != nil {
		return nil, fmt.Errorf("read session key %s: %w", path, err)
	}
	return key, nil
}

func makeKey(path string) ([]byte, error) {
	key := make([]byte, keySize)
	rand.Read(key) // never fails: it ends the program instead
	if err := os.WriteFile(path, key, 0o600); err != nil {
		return nil, fmt.Errorf("write session key: %w", err)
	}
	return key, nil
}

// sessionKeys derives one key for sealing and one for form codes.
func sessionKeys(key []byte) (cipher.AEAD, []byte) {
	if len(key) == 0 {
		key = make([]byte, keySize)
		rand.Read(key) // never fails: it ends the program instead
	}
	block, err := aes.NewCipher(derive(key, "vedette dashboard session"))
	if err != nil {
		panic(err) // the length of the key is a constant
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err) // as above
	}
	return aead, derive(key, "vedette dashboard form")
}

func derive(key []byte, purpose string) []byte {
	out, err := hkdf.Expand(sha256.New, key, purpose, keySize)
	if err != nil {
		panic(err) // only for lengths beyond those of SHA-256
	}
	return out
}

func (s *Server) sealSession(v session) (string, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return "", err
	}
	return base64.RawURLEncoding.EncodeToString(s.seal.Seal(nil, nil, b, nil)), nil //nolint:gosec // the AEAD makes its own random nonce
}

// openSession reads the cookie. ok is false for none, a foreign one, or one
// past its time.
func (s *Server) openSession(r *http.Request) (v session, ok bool) {
	c, err := r.Cookie(cookieName)
	if err != nil {
		return v, false
	}
	sealed, err := base64.RawURLEncoding.DecodeString(c.Value)
	if err != nil {
		return v, false
	}
	b, err := s.seal.Open(nil, nil, sealed, nil)
	if err != nil || json.Unmarshal(b, &v) != nil {
		return v, false
	}
	return v, s.cfg.Now().Before(v.Expires)
}

// code is what forms of a session carry.
func (s *Server) code(v session) string {
	mac := hmac.New(sha256.New, s.csrfKey)
	mac.Write([]byte(v.ID))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func (s *Server) validCode(v session, given string) bool {
	return hmac.Equal([]byte(s.code(v)), []byte(given))
}

// request is one request of somebody who is signed in.
type request struct {
	*http.Request

	who  operator.Principal
	code string
}

type signedInHandler func(w http.ResponseWriter, r *request)

// signedIn lets only people through who hold a valid token, and forms only
// with the session's code.
func (s *Server) signedIn(next signedInHandler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v, ok := s.openSession(r)
		if !ok {
			s.toSignIn(w, r)
			return
		}
		p, err := s.cfg.Auth.Authenticate(r.Context(), v.Token)
		if operator.CodeOf(err) == operator.Unauthorized {
			s.dropCookie(w, r)
			s.toSignIn(w, r)
			return
		}
		req := &request{Request: r.WithContext(operator.WithPrincipal(r.Context(), p)), who: p, code: s.code(v)}
		if err != nil {
			s.fail(w, req, err)
			return
		}
		if r.Method == http.MethodPost && !s.checkForm(w, req, v) {
			return
		}
		next(w, req)
	})
}

func (s *Server) checkForm(w http.ResponseWriter, r *request, v session) bool {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		s.fail(w, r, operator.Errorf(operator.Invalid, "the form cannot be read"))
		return false
	}
	if !s.validCode(v, r.PostForm.Get(csrfField)) {
		s.fail(w, r, operator.Errorf(operator.Forbidden, "the form is not of this session").
			WithHint("load the page again and repeat what you did"))
		return false
	}
	return true
}

// toSignIn asks for a token. A page that refreshes itself is told in its own
// way to go there as a whole, and a stream with a status that ends it.
func (s *Server) toSignIn(w http.ResponseWriter, r *http.Request) {
	to := "/sign-in"
	if r.Method == http.MethodGet && r.URL.Path != "/" && r.URL.Path != "/events" {
		to += "?next=" + queryEscape(r.URL.RequestURI())
	}
	switch {
	case r.Header.Get("HX-Request") != "":
		w.Header().Set("HX-Redirect", to)
		w.WriteHeader(http.StatusUnauthorized)
	case r.URL.Path == "/events":
		w.WriteHeader(http.StatusUnauthorized)
	default:
		http.Redirect(w, r, to, http.StatusSeeOther) //nolint:gosec // a constant path with an escaped query
	}
}

// signInView is the sign-in form.
type signInView struct {
	Next  string
	Error *operator.Error
}

func (s *Server) signInPage(w http.ResponseWriter, r *http.Request) {
	s.renderSignIn(w, http.StatusOK, signInView{Next: localPath(r.URL.Query().Get("next"))})
}

func (s *Server) renderSignIn(w http.ResponseWriter, status int, v signInView) {
	s.write(w, status, "sign-in", &page{Title: "Sign in", Data: v})
}

func (s *Server) signIn(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	next := localPath(r.PostFormValue("next"))
	refuse := func(err error) {
		e := s.explain(err)
		s.renderSignIn(w, e.Code.Status(), signInView{Next: next, Error: e})
	}
	if !s.signIns.Allow() {
		refuse(operator.Errorf(operator.TooMany, "too many attempts to sign in").WithHint("wait a moment"))
		return
	}
	token := strings.TrimSpace(r.PostFormValue("token"))
	if token == "" || len(token) > maxToken {
		refuse(operator.Errorf(operator.Invalid, "an operator token is needed"))
		return
	}
	p, err := s.cfg.Auth.Authenticate(r.Context(), token)
	if err != nil {
		refuse(err)
		return
	}
	v := session{ID: rand.Text(), Token: token, Expires: s.cfg.Now().Add(s.cfg.Session)}
	sealed, err := s.sealSession(v)
	if err != nil {
		refuse(err)
		return
	}
	s.setCookie(w, r, sealed, int(s.cfg.Session/time.Second))
	s.cfg.Log.Info("somebody signed in to the dashboard", "principal", p.Name, "role", string(p.Role))
	http.Redirect(w, r, next, http.StatusSeeOther) //nolint:gosec // localPath let it through
}

func (s *Server) signOut(w http.ResponseWriter, r *request) {
	s.dropCookie(w, r.Request)
	http.Redirect(w, r.Request, "/sign-in", http.StatusSeeOther)
}

func (s *Server) dropCookie(w http.ResponseWriter, r *http.Request) { s.setCookie(w, r, "", -1) }

// setCookie marks the cookie Secure when the server itself speaks TLS. Without
// TLS it listens on loopback or behind a proxy, where Secure would lose it.
func (s *Server) setCookie(w http.ResponseWriter, r *http.Request, value string, maxAge int) {
	http.SetCookie(w, &http.Cookie{ //nolint:gosec // see above for Secure
		Name: cookieName, Value: value, Path: "/", MaxAge: maxAge,
		HttpOnly: true, Secure: r.TLS != nil, SameSite: http.SameSiteStrictMode,
	})
}

// localPath returns p when it is a path of this server, otherwise "/": a link
// to the sign-in page must not lead elsewhere afterwards.
func localPath(p string) string {
	if !strings.HasPrefix(p, "/") || strings.HasPrefix(p, "//") || strings.ContainsAny(p, "\\\r\n\t") {
		return "/"
	}
	return p
}
