// Package operator is what the operator HTTP API (/api/v1) and its clients say
// to each other: request and response bodies, error codes, and the interfaces
// that both the server's own service and the HTTP client satisfy. Pages and
// command-line tools are written against those interfaces and so run the same
// in the server's process and across the network.
//
// Conventions: field names are snake_case; times are RFC 3339 in UTC and
// absent when not known; durations are text ("90s") unless the name ends in
// _ms or _us; sizes are bytes; digests are 64 lower-case hex digits; shares
// and rates are 0 to 1 unless the name says percent. Lists come in pages.
package operator

import (
	"context"
	"slices"
)

// Prefix of every route.
const Prefix = "/api/v1"

// Limits of the API. A request over a limit is refused with TooLarge or Invalid.
const (
	// MaxBody bounds a JSON request body, bytes.
	MaxBody = 1 << 20
	// MaxTargetsBody bounds the body of a targets upload, bytes: signed targets
	// of 4 MiB, some 13,000 releases, in base64.
	MaxTargetsBody = 6 << 20
	// MaxChunk bounds one request of a blob upload, bytes. A broken connection
	// costs at most what had not reached the server's disk.
	MaxChunk = 64 << 20
	// MaxPage bounds the items of one page.
	MaxPage = 1000
	// DefaultPage is the length of a page when none is asked for.
	DefaultPage = 200
	// MaxReason bounds the reason given with a command, bytes.
	MaxReason = 1000
)

// Page is one part of a list. Next is empty on the last page; otherwise it is
// given as Cursor to get the following one.
type Page[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next,omitempty"`
	Total int    `json:"total"` // items of the whole list, as far as known
}

// Paging asks for a part of a list. The zero value asks for the first page of
// DefaultPage items.
type Paging struct {
	Limit  int    `json:"limit,omitempty" query:"limit"`
	Cursor string `json:"cursor,omitempty" query:"cursor"`
}

// Role is what a principal may do. Each role may do all that those before it may.
type Role string

// Roles, from the least to the most.
const (
	Viewer    Role = "viewer"    // read everything except secrets
	Scientist Role = "scientist" // log runs, register candidates, upload artifacts and labels
	Operator  Role = "operator"  // move the fleet: rollouts, labels, device tokens, settings
	Publisher Role = "publisher" // upload blobs and signed metadata, set stages
	Admin     Role = "admin"     // operator tokens, device revocation, root of trust
)

var roles = []Role{Viewer, Scientist, Operator, Publisher, Admin}

// Valid says whether r is a role.
func (r Role) Valid() bool { return slices.Contains(roles, r) }

// Allows says whether a principal of role r may do what needs role need.
func (r Role) Allows(need Role) bool {
	return r.Valid() && need.Valid() && slices.Index(roles, r) >= slices.Index(roles, need)
}

// Principal is who makes a request.
type Principal struct {
	Name  string `json:"name"`            // for people and for the ledger's actor
	Role  Role   `json:"role"`            //
	Token string `json:"token,omitempty"` // id of the operator token, never its secret
}

type principalKey struct{}

// WithPrincipal returns a context whose calls are made by p. Whoever
// authenticated p calls it; the service refuses calls without a principal.
func WithPrincipal(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// PrincipalOf returns who makes the call; ok is false when nobody was authenticated.
func PrincipalOf(ctx context.Context) (p Principal, ok bool) {
	p, ok = ctx.Value(principalKey{}).(Principal)
	return p, ok
}
