package access

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/protocol/operator"
)

const (
	operatorPrefix = "vop1_"
	// AdminTokenFile is where the first start leaves the first admin token.
	AdminTokenFile = "admin-token"
	// usedEvery bounds how often the use of a token is written down.
	usedEvery    = time.Hour
	maxTokenName = 64
)

// operatorToken is the server's side of an operator token.
type operatorToken struct {
	operator.Token

	Hash []byte `json:"hash"` // of the secret
}

// firstAdmin makes an admin token when there is none of any kind. The file comes
// first: a token that nobody can read would lock everybody out.
func (a *Authority) firstAdmin(ctx context.Context) error {
	have, err := a.bucket.List(ctx, prefixToken)
	if err != nil || len(have) > 0 {
		return err
	}
	path := filepath.Join(a.cfg.Dir, AdminTokenFile)
	text, id, hash := newSecret(operatorPrefix)
	if err := writeSecret(path, []byte(text+"\n")); err != nil {
		return err
	}
	t := operatorToken{
		Token: operator.Token{ID: id, Name: "admin", Role: operator.Admin, Created: a.ca.now().UTC()},
		Hash:  hash,
	}
	if err := a.save(ctx, tokenKey(id), &t, 0); err != nil {
		return err
	}
	a.cfg.Logger.Info("first admin token written", slog.String("path", path))
	return nil
}

// Authenticate says who holds a token. One that is unknown, expired or revoked
// gives an *operator.Error of code Unauthorized; which of the three is said only
// to who has the right secret.
func (a *Authority) Authenticate(ctx context.Context, text string) (operator.Principal, error) {
	unknown := operator.Errorf(operator.Unauthorized, "the token is not known").
		WithHint("use a token of this control plane; the first one is in the file %s of its data directory", AdminTokenFile)
	id, secret, ok := splitSecret(operatorPrefix, text)
	if !ok {
		return operator.Principal{}, unknown
	}
	var t operatorToken
	_, err := a.load(ctx, tokenKey(id), &t)
	if errors.Is(err, kvstore.ErrNotFound) {
		return operator.Principal{}, unknown
	}
	if err != nil {
		return operator.Principal{}, storage(err)
	}
	now := a.ca.now()
	switch {
	case !sameHash(secret, t.Hash):
		return operator.Principal{}, unknown
	case t.Revoked:
		return operator.Principal{}, operator.Errorf(operator.Unauthorized, "the token %s was revoked", t.ID)
	case !t.Expires.IsZero() && !now.Before(t.Expires):
		return operator.Principal{}, operator.Errorf(operator.Unauthorized, "the token %s has expired", t.ID)
	}
	a.noteUse(ctx, &t, now)
	return operator.Principal{Name: t.Name, Role: t.Role, Token: t.ID}, nil
}

// noteUse writes down that a token is in use, seldom enough not to matter.
func (a *Authority) noteUse(ctx context.Context, t *operatorToken, now time.Time) {
	if now.Sub(t.LastUsed) < usedEvery {
		return
	}
	_, err := change(ctx, a, tokenKey(t.ID), func(t *operatorToken) error {
		t.LastUsed = now.UTC()
		return nil
	})
	if err != nil {
		a.cfg.Logger.Warn("use of a token not written down", slog.String("token", t.ID), slog.Any("error", err))
	}
}

// CreateToken makes an operator token. The secret is told once.
func (a *Authority) CreateToken(ctx context.Context, c operator.TokenCreate) (*operator.TokenSecret, error) {
	name := strings.TrimSpace(c.Name)
	switch {
	case name == "" || len(name) > maxTokenName:
		return nil, operator.Errorf(operator.Invalid, "name must have 1 to %d bytes", maxTokenName)
	case !c.Role.Valid():
		return nil, operator.Errorf(operator.Invalid, "there is no role %.40q", c.Role).
			WithHint("roles are viewer, scientist, operator, publisher and admin")
	case c.TTL < 0:
		return nil, operator.Errorf(operator.Invalid, "lifetime must not be negative")
	}
	if err := operator.CheckText("name", name); err != nil {
		return nil, err
	}
	text, id, hash := newSecret(operatorPrefix)
	now := a.ca.now().UTC().Truncate(time.Second)
	t := operatorToken{Token: operator.Token{ID: id, Name: name, Role: c.Role, Created: now}, Hash: hash}
	if c.TTL > 0 {
		t.Expires = now.Add(time.Duration(c.TTL))
	}
	if err := a.save(ctx, tokenKey(id), &t, 0); err != nil {
		return nil, storage(err)
	}
	return &operator.TokenSecret{Token: t.Token, Secret: text}, nil
}

// Tokens returns all operator tokens without their secrets, newest first.
func (a *Authority) Tokens(ctx context.Context) ([]operator.Token, error) {
	all, err := a.tokens(ctx)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(x, y operator.Token) int { return y.Created.Compare(x.Created) })
	return all, nil
}

func (a *Authority) tokens(ctx context.Context) ([]operator.Token, error) {
	entries, err := a.bucket.List(ctx, prefixToken)
	if err != nil {
		return nil, storage(err)
	}
	out := make([]operator.Token, 0, len(entries))
	for _, e := range entries {
		var t operatorToken
		if err := json.Unmarshal(e.Value, &t); err != nil {
			return nil, operator.Errorf(operator.Internal, "read operator token %s: %w", e.Key, err)
		}
		out = append(out, t.Token)
	}
	return out, nil
}

// RevokeToken ends a token. The last admin token cannot be revoked: nobody could
// make another.
func (a *Authority) RevokeToken(ctx context.Context, id string) error {
	all, err := a.tokens(ctx)
	if err != nil {
		return err
	}
	now := a.ca.now()
	others := slices.ContainsFunc(all, func(t operator.Token) bool {
		return t.ID != id && t.Role == operator.Admin && !t.Revoked && (t.Expires.IsZero() || now.Before(t.Expires))
	})
	_, err = change(ctx, a, tokenKey(id), func(t *operatorToken) error {
		if t.Role == operator.Admin && !t.Revoked && !others {
			return operator.Errorf(operator.Conflict, "%s is the last admin token", id).
				WithHint("create another admin token first")
		}
		t.Revoked = true
		return nil
	})
	if errors.Is(err, kvstore.ErrNotFound) {
		return operator.Errorf(operator.NotFound, "there is no operator token %.40q", id)
	}
	return storage(err)
}
