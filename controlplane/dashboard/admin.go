package dashboard

import (
	"context"
	"net/http"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// ledgerView is a part of the ledger.
type ledgerView struct {
	*operator.Page[operator.LedgerRecord]

	Query operator.LedgerQuery
	Next  string
}

func (s *Server) ledger(ctx context.Context, r *request) (string, *page, error) {
	values := r.URL.Query()
	dropEmpty(values)
	var q operator.LedgerQuery
	if err := operator.DecodeQuery(values, &q); err != nil {
		return "", nil, err
	}
	q.Limit = pageLength
	list, err := s.cfg.Service.Ledger(ctx, q)
	if err != nil {
		return "", nil, err
	}
	v := ledgerView{Page: list, Query: q}
	if list.Next != "" {
		q.Cursor, q.Limit = list.Next, 0
		v.Next = "/ledger?" + operator.EncodeQuery(q).Encode()
	}
	p := &page{Title: "Ledger", Section: "ledger", Data: v}
	if q.Cursor == "" { // older pages do not change
		p.Live, p.Kinds = "#list", "rollout,model,device"
	}
	return "ledger", p, nil
}

// exportLedger is the whole ledger in the form that is verified offline.
func (s *Server) exportLedger(w http.ResponseWriter, r *request) {
	w.Header().Set("Content-Type", "application/jsonl")
	w.Header().Set("Content-Disposition", `attachment; filename="ledger.jsonl"`)
	if err := s.cfg.Service.ExportLedger(r.Context(), w); err != nil {
		s.cfg.Log.Error("ledger export ended early", "error", err)
		panic(http.ErrAbortHandler) // a short file must not look like a whole one
	}
}

// enrolmentView is who may join the fleet, and where.
type enrolmentView struct {
	Tokens []operator.EnrolToken
	Server *operator.ServerInfo
}

func (s *Server) enrolment(ctx context.Context, _ *request) (string, *page, error) {
	tokens, err := s.cfg.Service.EnrolTokens(ctx)
	if err != nil {
		return "", nil, err
	}
	info, err := s.cfg.Service.Server(ctx)
	if err != nil {
		return "", nil, err
	}
	return "enrolment", &page{
		Title: "Enrolment", Section: "enrolment", Live: "#list", Kinds: "device", Data: enrolmentView{tokens, info},
	}, nil
}
