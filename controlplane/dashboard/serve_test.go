package dashboard

import (
	"context"
	"net/http"
	"os"
	"testing"

	"github.com/vedette-edge/vedette/controlplane/client"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// TestServe serves the pages over a running control plane, to look at them:
//
//	VEDETTE_SERVER=http://127.0.0.1:8480 VEDETTE_TOKEN=… DASHBOARD=127.0.0.1:8481 go test -run TestServe -timeout 0
func TestServe(t *testing.T) {
	at := os.Getenv("DASHBOARD")
	if at == "" {
		t.Skip("for looking at pages: set DASHBOARD, VEDETTE_SERVER and VEDETTE_TOKEN")
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
	t.Fatal(http.ListenAndServe(at, New(Config{Service: c, Auth: auth})))
}

type authFunc func(ctx context.Context, token string) (operator.Principal, error)

func (f authFunc) Authenticate(ctx context.Context, token string) (operator.Principal, error) {
	return f(ctx, token)
}
