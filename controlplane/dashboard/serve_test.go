package dashboard

import (
	"context"
	"net/http"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/controlplane/client"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// TestServe serves the pages over a running control plane, to look at them:
//
//	VEDETTE_SERVER=http://127.0.0.1:8480 VEDETTE_TOKEN=… DASHBOARD=127.0.0.1:8481 go test -run TestServe -timeout 0
//
// Without VEDETTE_SERVER they show the fleet of the tests, and CROWD is how
// many devices its rollout has.
func TestServe(t *testing.T) {
	at := os.Getenv("DASHBOARD")
	if at == "" {
		t.Skip("for looking at pages: set DASHBOARD, VEDETTE_SERVER and VEDETTE_TOKEN")
	}
	if os.Getenv("VEDETTE_SERVER") == "" {
		t.Fatal(http.ListenAndServe(at, alwaysSignedIn(t, New(Config{Service: toShow(), Auth: authFunc(anyone), Now: func() time.Time { return now }}))))
	}
	c, err := client.New(os.Getenv("VEDETTE_SERVER"), os.Getenv("VEDETTE_TOKEN"), client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	auth := authFunc(func(ctx context.Context, _ string) (operator.Principal, error) {
		info, err := c.Server(ctx)
		if err != nil {
			return operator.Principal{}, err
		}
		return info.Principal, nil
	})
	t.Fatal(http.ListenAndServe(at, alwaysSignedIn(t, New(Config{Service: c, Auth: auth}))))
}

func anyone(context.Context, string) (operator.Principal, error) {
	return operator.Principal{Name: "ada", Role: operator.Admin}, nil
}

func toShow() Service {
	n, err := strconv.Atoi(os.Getenv("CROWD"))
	if err != nil {
		return newFleet()
	}
	return &crowded{fleet: newFleet(), x: crowd(n)}
}

// crowded is a fleet whose one rollout has many devices.
type crowded struct {
	*fleet

	x *operator.Rollout
}

func (c *crowded) Rollout(context.Context, string) (*operator.Rollout, error) { return c.x, nil }

// alwaysSignedIn gives every request a session, so that a browser without
// hands can take pictures.
func alwaysSignedIn(t *testing.T, s *Server) http.Handler {
	t.Helper()
	sealed, err := s.sealSession(session{ID: "pictures", Token: "any", Expires: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.AddCookie(&http.Cookie{Name: cookieName, Value: sealed})
		s.ServeHTTP(w, r)
	})
}

type authFunc func(ctx context.Context, token string) (operator.Principal, error)

func (f authFunc) Authenticate(ctx context.Context, token string) (operator.Principal, error) {
	return f(ctx, token)
}
