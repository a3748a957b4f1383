package story

import (
	"fmt"
	"strings"
	"time"

	"github.com/pgregent/regent/events"
)

// Sentence tells an event in a few words, for people who read a night's journal. It
// knows every kind; nil is an event of a newer version.
func Sentence(e events.Event) string {
	for _, tell := range []func(events.Event) string{agentSentence, storeSentence, postgresSentence, requestSentence, failsafeSentence} {
		if s := tell(e); s != "" {
			return s
		}
	}
	return "an event that this version doesn't know"
}

func agentSentence(e events.Event) string {
	switch e := e.(type) {
	case events.AgentStarted:
		return fmt.Sprintf("agent %s started in cluster %s, version %s", e.Node, e.Scope, e.Version)
	case events.Tick:
		return "heartbeat"
	case events.TimerFired:
		return "timer " + e.Name + " fired"
	case events.Reconsider:
		return "and then"
	case events.TimeJumped:
		return "this machine stood still for " + short(e.By)
	case events.JournalDegraded:
		if e.Why == "" {
			return "the journal can be written again"
		}
		return "the journal can't be written: " + e.Why
	case events.ShutdownRequested:
		return "asked to end by " + e.By
	case events.ConfigChanged:
		return fmt.Sprintf("settings changed: ttl %s, loop_wait %s, retry_timeout %s",
			short(e.Settings.TTL), short(e.Settings.LoopWait), short(e.Settings.RetryTimeout))
	case events.PauseChanged:
		if e.Paused {
			return "maintenance mode switched on"
		}
		return "maintenance mode switched off"
	case events.ActionFinished:
		return finished(e)
	default:
		return ""
	}
}

func finished(e events.ActionFinished) string {
	s := e.Action + " " + string(e.Class)
	if e.Why != "" {
		s += ": " + e.Why
	}
	if d := e.Result.Divergence; d != nil {
		s += fmt.Sprintf(" (%s: %s)", d.Verdict, d.Why)
	}
	return s
}

func storeSentence(e events.Event) string {
	switch e := e.(type) {
	case events.ClusterObserved:
		return clusterSentence(e.View)
	case events.DCSUnavailable:
		return "the store stopped answering: " + e.Why
	case events.DCSRestored:
		return "the store answers again"
	case events.LeaseAcquired:
		return fmt.Sprintf("acquired the leader key at revision %d", e.Revision)
	case events.LeaseRenewed:
		return fmt.Sprintf("lease renewed for %s, keys %s", short(e.TTL), strings.Join(e.Keys, ", "))
	case events.RenewalFailed:
		return fmt.Sprintf("renewal got no answer (%s): %s", e.Class, e.Why)
	case events.LeaseLost:
		s := "lease lost: " + string(e.Cause)
		if e.By != "" {
			s += " by " + string(e.By)
		}
		return s
	case events.PeerObserved:
		return peerSentence(e.Peer)
	default:
		return ""
	}
}

func clusterSentence(v events.ClusterView) string {
	leader := "nobody leads"
	if v.Leader.Locked() {
		leader = string(v.Leader.Name) + " leads"
	}
	s := fmt.Sprintf("store at revision %d: %s, %d member", v.Revision, leader, len(v.Members))
	if len(v.Members) != 1 {
		s += "s"
	}
	if f := v.Failover; f.Pending() {
		s += fmt.Sprintf(", requested: %s to %s", orAnyone(f.Leader), orAnyone(f.Candidate))
	}
	return s
}

func orAnyone(n events.NodeName) string {
	if n == "" {
		return "anyone"
	}
	return string(n)
}

func peerSentence(p events.Peer) string {
	if !p.Reachable {
		return fmt.Sprintf("%s doesn't answer: %s", p.Name, p.Why)
	}
	role := "a replica"
	if p.Primary {
		role = "a primary"
	}
	return fmt.Sprintf("%s answers: %s, %s, timeline %d, at %s", p.Name, p.State, role, p.Timeline, p.Position)
}

func postgresSentence(e events.Event) string {
	switch e := e.(type) {
	case events.PostgresObserved:
		return observedSentence(e.State)
	case events.PostgresUp:
		return fmt.Sprintf("PostgreSQL accepts connections (pid %d)", e.PID)
	case events.PostgresDown:
		return downSentence(e)
	case events.PrimaryStartTimeout:
		return "primary_start_timeout is over"
	case events.FenceBegun:
		return "the keeper stops PostgreSQL by itself: " + e.Why
	case events.KeeperLost:
		return "lost the keeper: " + e.Why
	case events.KeeperFound:
		s := "found the keeper"
		if e.PID != 0 {
			s += fmt.Sprintf(", PostgreSQL runs (pid %d)", e.PID)
		}
		if e.Armed {
			s += ", armed"
		}
		if e.Adopted {
			s += ", adopted"
		}
		return s
	case events.UnexpectedPrimary:
		return fmt.Sprintf("PostgreSQL left recovery unasked, timeline %d", e.Timeline)
	case events.CleanShutdown:
		return fmt.Sprintf("PostgreSQL has written its last checkpoint, which ends at %s", e.End)
	case events.WalReceiverEnded:
		return "streaming ended from " + orNowhere(e.Upstream)
	case events.SyncLost:
		return fmt.Sprintf("lost the %s standby %s", e.Mode, e.Standby)
	default:
		return ""
	}
}

func downSentence(e events.PostgresDown) string {
	how := fmt.Sprintf("exit code %d", e.Code)
	if e.Signal != 0 {
		how = fmt.Sprintf("signal %d", e.Signal)
	}
	whose := "unexpectedly"
	switch {
	case e.Fenced:
		whose = "fenced"
	case e.Ours:
		whose = "as asked"
	}
	return fmt.Sprintf("PostgreSQL is down %s (pid %d, %s)", whose, e.PID, how)
}

func observedSentence(p events.PostgresState) string {
	switch {
	case !p.Running && p.Data.Content != events.DataCluster:
		return "PostgreSQL is down, the data directory is " + p.Data.Content
	case !p.Running:
		return "PostgreSQL is down (" + p.Data.ControlState + ")"
	case !p.Ready:
		return "PostgreSQL runs and doesn't answer: " + p.Why
	case !p.InRecovery:
		return fmt.Sprintf("PostgreSQL is a primary, timeline %d, at %s, %d standbys", p.Timeline, p.Position, len(p.Standbys))
	}
	how := "not streaming"
	if p.Streaming {
		how = "streaming from " + orNowhere(p.Upstream)
	}
	return fmt.Sprintf("PostgreSQL is a standby, timeline %d, at %s, %s", p.Timeline, max(p.Received, p.Replayed), how)
}

func orNowhere(s string) string {
	if s == "" {
		return "an unknown upstream"
	}
	return s
}

func requestSentence(e events.Event) string {
	switch e := e.(type) {
	case events.SwitchoverRequested:
		return fmt.Sprintf("switchover requested from %s to %s", orAnyone(e.From), orAnyone(e.To))
	case events.FailoverRequested:
		return "failover requested to " + orAnyone(e.To)
	case events.RestartRequested:
		if e.Schedule != nil {
			return "restart requested for " + e.Schedule.At
		}
		return "restart requested"
	case events.RestartWithdrawn:
		return "scheduled restart withdrawn"
	case events.ReinitRequested:
		return "reinitialization requested"
	default:
		return ""
	}
}

func failsafeSentence(e events.Event) string {
	switch e := e.(type) {
	case events.FailsafeAsked:
		return fmt.Sprintf("%s, which the store doesn't answer, asks for a promise not to lead", e.From)
	case events.FailsafeAnswered:
		if e.Accepted {
			return fmt.Sprintf("%s promised not to lead", e.Member)
		}
		return fmt.Sprintf("%s didn't promise not to lead: %s", e.Member, e.Why)
	default:
		return ""
	}
}

// short rounds a duration to what people care about.
func short(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	default:
		return d.Round(time.Millisecond).String()
	}
}
