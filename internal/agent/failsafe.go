package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/fsm"
)

// FailsafeRequest is the body of POST /failsafe: Patroni's, and what a Patroni ignores.
type FailsafeRequest struct {
	Name    events.NodeName       `json:"name"`
	ConnURL string                `json:"conn_url"`
	APIURL  string                `json:"api_url"`
	Slots   map[string]events.LSN `json:"slots"`
	Regent  *FailsafeDetails      `json:"regent,omitempty"`
}

// FailsafeDetails are Regent's own: whom the question is meant for, since an address may have
// become another member's, and for how long the promise is wanted.
type FailsafeDetails struct {
	Scope  string          `json:"scope"`
	Member events.NodeName `json:"member"`
	TTLms  int64           `json:"ttl_ms"`
}

// askFailsafe asks all members at once (S12). Each is asked once; the machine asks again.
func (a *Agent) askFailsafe(ctx context.Context, o fsm.Ordered, act fsm.AskFailsafe) {
	slots := map[string]events.LSN{}
	for _, s := range act.Slots {
		slots[s.Name] = s.LSN
	}
	var asked sync.WaitGroup
	for _, m := range act.Members {
		asked.Go(func() {
			ev := events.FailsafeAnswered{ID: o.ID, Member: m.Name}
			err := a.postFailsafe(ctx, m.APIURL, FailsafeRequest{
				Name: a.opt.Name, ConnURL: act.ConnURL, APIURL: act.APIURL, Slots: slots,
				Regent: &FailsafeDetails{Scope: a.opt.Scope, Member: m.Name, TTLms: act.TTL.Milliseconds()},
			})
			if ev.Accepted = err == nil; err != nil {
				ev.Why = err.Error()
			}
			a.mail.put(ev)
		})
	}
	asked.Wait()
	a.finished(o, events.Done, nil, events.Result{})
}

// postFailsafe puts the question to one member. Nothing but its consent is no error.
func (a *Agent) postFailsafe(ctx context.Context, apiURL string, body FailsafeRequest) error {
	to, err := url.Parse(apiURL)
	if err != nil || to.Host == "" {
		return fmt.Errorf("its address %q is none", apiURL)
	}
	raw, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode the question: %w", err)
	}
	to.Path, to.RawQuery = "/failsafe", ""
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to.String(), bytes.NewReader(raw))
	if err != nil {
		return fmt.Errorf("ask %s: %w", to.Host, err)
	}
	req.Header.Set("Content-Type", "application/json")
	if a.opt.Credentials != nil {
		if name, password := a.opt.Credentials(); name != "" {
			req.SetBasicAuth(name, password)
		}
	}
	resp, err := a.opt.Peers.Do(req)
	if err != nil {
		return fmt.Errorf("ask %s: %w", to.Host, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 200))
	switch {
	case err != nil:
		return fmt.Errorf("read the answer of %s: %w", to.Host, err)
	case resp.StatusCode == http.StatusBadGateway:
		return fmt.Errorf("its failsafe mode is off (%s)", resp.Status)
	case resp.StatusCode != http.StatusOK || string(text) != "Accepted":
		return fmt.Errorf("%s: %.200s", resp.Status, text)
	}
	return nil
}

// giveDurably answers when what led to the answer is on disk: a promise that this member could
// forget is none (S12, S19).
func (a *Agent) giveDurably(ctx context.Context, act fsm.Respond) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	ans := Answer{OK: act.OK, Text: act.Text}
	if err := a.opt.Journal.Sync(ctx); err != nil {
		ans = Answer{Text: "the promise can't be written to disk: " + err.Error()}
	}
	a.answers.give(act.ID, ans)
}

// failsafeWrite is the holder's only: the leader key must be this member's, and the failsafe key
// as it was read.
func (a *Agent) failsafeWrite(act fsm.WriteFailsafe) dcs.Txn {
	mine := dcs.ValueIs(dcs.KeyLeader, string(a.opt.Name))
	mine.Lease = act.Lease
	w := dcs.Write{Key: dcs.KeyFailsafe, Delete: true}
	if len(act.Members) > 0 {
		urls := map[events.NodeName]string{}
		for _, m := range act.Members {
			urls[m.Name] = m.APIURL
		}
		w = dcs.Put(dcs.KeyFailsafe, dcs.EncodeFailsafe(urls))
	}
	return dcs.Txn{Guards: []dcs.Guard{mine, versionGuard(dcs.KeyFailsafe, act.Version)}, Writes: []dcs.Write{w}}
}
