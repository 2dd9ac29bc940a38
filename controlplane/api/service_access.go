package api

import (
	"context"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// EnrolTokens lists enrolment tokens.
func (s *Service) EnrolTokens(ctx context.Context) ([]operator.EnrolToken, error) {
	return s.d.Access.EnrolTokens(ctx)
}

// CreateEnrolToken makes an enrolment token.
func (s *Service) CreateEnrolToken(ctx context.Context, c operator.EnrolTokenCreate) (*operator.EnrolSecret, error) {
	p, err := caller(ctx, operator.Operator)
	if err != nil {
		return nil, err
	}
	t, err := s.d.Access.CreateEnrolToken(ctx, c)
	if err != nil {
		return nil, err
	}
	return t, s.note(ctx, p.Name, "enrol_token.created", t.EnrolToken)
}

// RevokeEnrolToken takes an enrolment token back.
func (s *Service) RevokeEnrolToken(ctx context.Context, id string) error {
	p, err := caller(ctx, operator.Operator)
	if err != nil {
		return err
	}
	if err := s.d.Access.RevokeEnrolToken(ctx, id); err != nil {
		return err
	}
	return s.note(ctx, p.Name, "enrol_token.revoked", map[string]string{"id": id})
}

// Tokens lists operator tokens.
func (s *Service) Tokens(ctx context.Context) ([]operator.Token, error) {
	return s.d.Access.Tokens(ctx)
}

// CreateToken makes an operator token.
func (s *Service) CreateToken(ctx context.Context, c operator.TokenCreate) (*operator.TokenSecret, error) {
	p, err := caller(ctx, operator.Admin)
	if err != nil {
		return nil, err
	}
	t, err := s.d.Access.CreateToken(ctx, c)
	if err != nil {
		return nil, err
	}
	return t, s.note(ctx, p.Name, "token.created", t.Token)
}

// RevokeToken ends an operator token.
func (s *Service) RevokeToken(ctx context.Context, id string) error {
	p, err := caller(ctx, operator.Admin)
	if err != nil {
		return err
	}
	if err := s.d.Access.RevokeToken(ctx, id); err != nil {
		return err
	}
	return s.note(ctx, p.Name, "token.revoked", map[string]string{"id": id})
}
