package api

import (
	"context"
	"encoding/json"
	"net/http"
)

// TargetReport is what a member says of the store that the cluster is to be moved to. It
// holds no secret: Digest is keyed by what the asker drew for this one time.
type TargetReport struct {
	// InForce is the store that decides for this member, File the one that its file names.
	InForce string `json:"in_force"`
	File    string `json:"file"`
	// Epoch is that of the last move that the member remembers.
	Epoch string `json:"epoch,omitempty"`
	// Target is regent.dcs_target.
	Target string `json:"target,omitempty"`
	Digest string `json:"digest,omitempty"`
	// Problem is why the member can't take part in a move; empty: it can.
	Problem string `json:"problem,omitempty"`
}

// target answers POST /dcs-target, with {"key": …}, which changes nothing but that the
// target is opened.
func (s *Server) target(ctx context.Context, r *request) *reply {
	raw, refusal := r.read(false)
	if refusal != nil {
		return refusal
	}
	var asked struct {
		Key string `json:"key"`
	}
	if s.opt.Target == nil || json.Unmarshal(raw, &asked) != nil || len(asked.Key) < 16 {
		return page(http.StatusBadRequest)
	}
	ctx, cancel := context.WithTimeout(ctx, s.storePatience())
	defer cancel()
	b, err := json.Marshal(s.opt.Target(ctx, asked.Key))
	if err != nil {
		return page(http.StatusInternalServerError)
	}
	return inJSON(http.StatusOK, b)
}
