package dashboard

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"runtime/debug"
	"strings"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// page is what the layout needs around the content of a page.
type page struct {
	Title     string
	Section   string        // of the navigation
	Path      string        // the page itself, with its query
	Live      string        // selectors of the parts that follow changes, separated by commas; empty for none
	Kinds     string        // kinds of events that change them, separated by commas
	Every     time.Duration // least time between two changes that the page is told of, 0 for refreshEvery
	Who       operator.Principal
	Code      string // for forms
	Alarms    int    // open
	Incidents int    // not resolved
	Data      any
}

// May says whether whoever looks at the page has a role.
func (p *page) May(role string) bool { return p.Who.Role.Allows(operator.Role(role)) }

// Events is the address of the page's event stream.
func (p *page) Events() string {
	q := url.Values{}
	if p.Kinds != "" {
		q.Set("kinds", p.Kinds)
	}
	if p.Every > 0 {
		q.Set("every", p.Every.String())
	}
	if len(q) == 0 {
		return "/events"
	}
	return "/events?" + q.Encode()
}

// view makes the content of one page; name is that of its template.
type view func(ctx context.Context, r *request) (name string, p *page, err error)

type pages map[string]*template.Template

// parsePages gives every template but the layout and the parts a copy of both.
func parsePages() pages {
	shared := template.Must(template.New("").Funcs(functions()).ParseFS(files, "templates/layout.html", "templates/parts.html", "templates/verdict.html", "templates/promotion.html"))
	names, err := fs.Glob(files, "templates/*.html")
	if err != nil {
		panic(err) // the pattern is a constant
	}
	out := pages{}
	for _, name := range names {
		base := strings.TrimSuffix(path.Base(name), ".html")
		out[base] = template.Must(template.Must(shared.Clone()).ParseFS(files, name))
	}
	return out
}

// show renders a view for whoever is signed in.
func (s *Server) show(v view) signedInHandler {
	return func(w http.ResponseWriter, r *request) {
		ctx, cancel := context.WithTimeout(r.Context(), pageTimeout)
		defer cancel()
		name, p, err := v(ctx, r)
		if err != nil {
			s.fail(w, r, err)
			return
		}
		s.dress(ctx, r, p)
		s.write(w, http.StatusOK, name, p)
	}
}

// dress fills in what the layout shows on every page.
func (s *Server) dress(ctx context.Context, r *request, p *page) {
	p.Who, p.Code, p.Path = r.who, r.code, r.URL.RequestURI()
	open, err := s.cfg.Service.Alarms(ctx, operator.AlarmQuery{Open: true, Paging: operator.Paging{Limit: 1}})
	if err == nil { // the page itself is worth more than the number beside its navigation
		p.Alarms = open.Total
	}
	p.Incidents = s.openIncidents(ctx)
}

// write renders a page as a whole before anything of it is sent.
func (s *Server) write(w http.ResponseWriter, status int, name string, p *page) {
	var b bytes.Buffer
	t, ok := s.pages[name]
	if !ok {
		s.broken(w, name, errors.New("there is no such template"))
		return
	}
	if err := t.ExecuteTemplate(&b, "layout", p); err != nil {
		s.broken(w, name, err)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	w.Write(b.Bytes()) //nolint:gosec // a reader that left is no fault of the page
}

func (s *Server) broken(w http.ResponseWriter, name string, err error) {
	s.cfg.Log.Error("page not rendered", "template", name, "error", err)
	http.Error(w, "The page could not be made; the server's log says why.", http.StatusInternalServerError)
}

// fail shows an error as a page with what to do next.
func (s *Server) fail(w http.ResponseWriter, r *request, err error) {
	e := s.explain(err)
	p := &page{Title: "That did not work", Data: e}
	s.dress(r.Context(), r, p)
	s.write(w, e.Code.Status(), "error", p)
}

// missing answers for paths without a page.
func (s *Server) missing(w http.ResponseWriter, r *request) {
	s.fail(w, r, operator.Errorf(operator.NotFound, "there is no such page"))
}

// explain is an error as people may see it. What an error without a code says
// stays in the log: it may hold what they are not to see.
func (s *Server) explain(err error) *operator.Error {
	if e, ok := errors.AsType[*operator.Error](err); ok {
		return e
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return operator.Errorf(operator.Unavailable, "the server did not finish in time").WithHint("try again")
	}
	if !errors.Is(err, context.Canceled) {
		s.cfg.Log.Error("page failed", "error", err)
	}
	return operator.Errorf(operator.Internal, "the server failed to answer").WithHint("its log says why")
}

// recovered keeps a panic in one page from ending the others.
func (s *Server) recovered(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			v := recover()
			if v == nil {
				return
			}
			if v == http.ErrAbortHandler { //nolint:errorlint // the sentinel itself is thrown, never wrapped
				panic(v)
			}
			s.cfg.Log.Error("page panicked", "path", r.URL.Path, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
			http.Error(w, "The page could not be made; the server's log says why.", http.StatusInternalServerError)
		}()
		next.ServeHTTP(w, r)
	})
}

// assetHandler serves what is embedded. Addresses carry no version, so
// browsers ask again; a day-old script against a new page would be worse.
func assetHandler() http.Handler {
	serve := http.FileServerFS(files)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/") {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Cache-Control", "no-cache")
		w.Header().Set("ETag", assetTag)
		serve.ServeHTTP(w, r)
	})
}

// assetTag names the content of all assets.
var assetTag = tagOf(files)

func queryEscape(s string) string { return url.QueryEscape(s) }

func queryPath(s string) string { return url.PathEscape(s) }
