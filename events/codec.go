package events

import (
	"encoding/json"
	"fmt"
)

// SchemaVersion of the event encoding. A field may be added without raising it;
// a change of meaning raises it, and the decoder keeps reading the old form.
const SchemaVersion = 1

// The kinds, one per event type, under the event's own name.
const (
	KindAgentStarted        Kind = "AgentStarted"
	KindTick                Kind = "Tick"
	KindTimerFired          Kind = "TimerFired"
	KindReconsider          Kind = "Reconsider"
	KindTimeJumped          Kind = "TimeJumped"
	KindJournalDegraded     Kind = "JournalDegraded"
	KindShutdownRequested   Kind = "ShutdownRequested"
	KindClusterObserved     Kind = "ClusterObserved"
	KindDCSUnavailable      Kind = "DCSUnavailable"
	KindDCSRestored         Kind = "DCSRestored"
	KindLeaseAcquired       Kind = "LeaseAcquired"
	KindLeaseRenewed        Kind = "LeaseRenewed"
	KindRenewalFailed       Kind = "RenewalFailed"
	KindLeaseLost           Kind = "LeaseLost"
	KindPostgresObserved    Kind = "PostgresObserved"
	KindPostgresUp          Kind = "PostgresUp"
	KindPostgresDown        Kind = "PostgresDown"
	KindPrimaryStartTimeout Kind = "PrimaryStartTimeout"
	KindFenceBegun          Kind = "FenceBegun"
	KindKeeperLost          Kind = "KeeperLost"
	KindKeeperFound         Kind = "KeeperFound"
	KindUnexpectedPrimary   Kind = "UnexpectedPrimary"
	KindCleanShutdown       Kind = "CleanShutdown"
	KindWalReceiverEnded    Kind = "WalReceiverEnded"
	KindSyncLost            Kind = "SyncLost"
	KindPeerObserved        Kind = "PeerObserved"
	KindFailsafeAsked       Kind = "FailsafeAsked"
	KindFailsafeAnswered    Kind = "FailsafeAnswered"
	KindSwitchoverRequested Kind = "SwitchoverRequested"
	KindFailoverRequested   Kind = "FailoverRequested"
	KindRestartRequested    Kind = "RestartRequested"
	KindRestartWithdrawn    Kind = "RestartWithdrawn"
	KindReinitRequested     Kind = "ReinitRequested"
	KindPauseChanged        Kind = "PauseChanged"
	KindConfigChanged       Kind = "ConfigChanged"
	KindActionFinished      Kind = "ActionFinished"
)

// Kinds lists every kind of event in the order of their declaration.
func Kinds() []Kind {
	return []Kind{
		KindAgentStarted,
		KindTick,
		KindTimerFired,
		KindReconsider,
		KindTimeJumped,
		KindJournalDegraded,
		KindShutdownRequested,
		KindClusterObserved,
		KindDCSUnavailable,
		KindDCSRestored,
		KindLeaseAcquired,
		KindLeaseRenewed,
		KindRenewalFailed,
		KindLeaseLost,
		KindPostgresObserved,
		KindPostgresUp,
		KindPostgresDown,
		KindPrimaryStartTimeout,
		KindFenceBegun,
		KindKeeperLost,
		KindKeeperFound,
		KindUnexpectedPrimary,
		KindCleanShutdown,
		KindWalReceiverEnded,
		KindSyncLost,
		KindPeerObserved,
		KindFailsafeAsked,
		KindFailsafeAnswered,
		KindSwitchoverRequested,
		KindFailoverRequested,
		KindRestartRequested,
		KindRestartWithdrawn,
		KindReinitRequested,
		KindPauseChanged,
		KindConfigChanged,
		KindActionFinished,
	}
}

// Kind implements Event.
func (AgentStarted) Kind() Kind { return KindAgentStarted }

// Kind implements Event.
func (Tick) Kind() Kind { return KindTick }

// Kind implements Event.
func (TimerFired) Kind() Kind { return KindTimerFired }

// Kind implements Event.
func (Reconsider) Kind() Kind { return KindReconsider }

// Kind implements Event.
func (TimeJumped) Kind() Kind { return KindTimeJumped }

// Kind implements Event.
func (JournalDegraded) Kind() Kind { return KindJournalDegraded }

// Kind implements Event.
func (ShutdownRequested) Kind() Kind { return KindShutdownRequested }

// Kind implements Event.
func (ClusterObserved) Kind() Kind { return KindClusterObserved }

// Kind implements Event.
func (DCSUnavailable) Kind() Kind { return KindDCSUnavailable }

// Kind implements Event.
func (DCSRestored) Kind() Kind { return KindDCSRestored }

// Kind implements Event.
func (LeaseAcquired) Kind() Kind { return KindLeaseAcquired }

// Kind implements Event.
func (LeaseRenewed) Kind() Kind { return KindLeaseRenewed }

// Kind implements Event.
func (RenewalFailed) Kind() Kind { return KindRenewalFailed }

// Kind implements Event.
func (LeaseLost) Kind() Kind { return KindLeaseLost }

// Kind implements Event.
func (PostgresObserved) Kind() Kind { return KindPostgresObserved }

// Kind implements Event.
func (PostgresUp) Kind() Kind { return KindPostgresUp }

// Kind implements Event.
func (PostgresDown) Kind() Kind { return KindPostgresDown }

// Kind implements Event.
func (PrimaryStartTimeout) Kind() Kind { return KindPrimaryStartTimeout }

// Kind implements Event.
func (FenceBegun) Kind() Kind { return KindFenceBegun }

// Kind implements Event.
func (KeeperLost) Kind() Kind { return KindKeeperLost }

// Kind implements Event.
func (KeeperFound) Kind() Kind { return KindKeeperFound }

// Kind implements Event.
func (UnexpectedPrimary) Kind() Kind { return KindUnexpectedPrimary }

// Kind implements Event.
func (CleanShutdown) Kind() Kind { return KindCleanShutdown }

// Kind implements Event.
func (WalReceiverEnded) Kind() Kind { return KindWalReceiverEnded }

// Kind implements Event.
func (SyncLost) Kind() Kind { return KindSyncLost }

// Kind implements Event.
func (PeerObserved) Kind() Kind { return KindPeerObserved }

// Kind implements Event.
func (FailsafeAsked) Kind() Kind { return KindFailsafeAsked }

// Kind implements Event.
func (FailsafeAnswered) Kind() Kind { return KindFailsafeAnswered }

// Kind implements Event.
func (SwitchoverRequested) Kind() Kind { return KindSwitchoverRequested }

// Kind implements Event.
func (FailoverRequested) Kind() Kind { return KindFailoverRequested }

// Kind implements Event.
func (RestartRequested) Kind() Kind { return KindRestartRequested }

// Kind implements Event.
func (RestartWithdrawn) Kind() Kind { return KindRestartWithdrawn }

// Kind implements Event.
func (ReinitRequested) Kind() Kind { return KindReinitRequested }

// Kind implements Event.
func (PauseChanged) Kind() Kind { return KindPauseChanged }

// Kind implements Event.
func (ConfigChanged) Kind() Kind { return KindConfigChanged }

// Kind implements Event.
func (ActionFinished) Kind() Kind { return KindActionFinished }

func (AgentStarted) sealed()        {}
func (Tick) sealed()                {}
func (TimerFired) sealed()          {}
func (Reconsider) sealed()          {}
func (TimeJumped) sealed()          {}
func (JournalDegraded) sealed()     {}
func (ShutdownRequested) sealed()   {}
func (ClusterObserved) sealed()     {}
func (DCSUnavailable) sealed()      {}
func (DCSRestored) sealed()         {}
func (LeaseAcquired) sealed()       {}
func (LeaseRenewed) sealed()        {}
func (RenewalFailed) sealed()       {}
func (LeaseLost) sealed()           {}
func (PostgresObserved) sealed()    {}
func (PostgresUp) sealed()          {}
func (PostgresDown) sealed()        {}
func (PrimaryStartTimeout) sealed() {}
func (FenceBegun) sealed()          {}
func (KeeperLost) sealed()          {}
func (KeeperFound) sealed()         {}
func (UnexpectedPrimary) sealed()   {}
func (CleanShutdown) sealed()       {}
func (WalReceiverEnded) sealed()    {}
func (SyncLost) sealed()            {}
func (PeerObserved) sealed()        {}
func (FailsafeAsked) sealed()       {}
func (FailsafeAnswered) sealed()    {}
func (SwitchoverRequested) sealed() {}
func (FailoverRequested) sealed()   {}
func (RestartRequested) sealed()    {}
func (RestartWithdrawn) sealed()    {}
func (ReinitRequested) sealed()     {}
func (PauseChanged) sealed()        {}
func (ConfigChanged) sealed()       {}
func (ActionFinished) sealed()      {}

// Marshal encodes the event's content; its kind is stored beside it.
func Marshal(e Event) ([]byte, error) {
	b, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encode event %s: %w", e.Kind(), err)
	}
	return b, nil
}

// Unmarshal decodes an event of the given kind. Fields it doesn't know are
// ignored, so that an older binary can read a newer journal's known events.
func Unmarshal(k Kind, b []byte) (Event, error) {
	switch k {
	case KindAgentStarted:
		return decode[AgentStarted](b)
	case KindTick:
		return decode[Tick](b)
	case KindTimerFired:
		return decode[TimerFired](b)
	case KindReconsider:
		return decode[Reconsider](b)
	case KindTimeJumped:
		return decode[TimeJumped](b)
	case KindJournalDegraded:
		return decode[JournalDegraded](b)
	case KindShutdownRequested:
		return decode[ShutdownRequested](b)
	case KindClusterObserved:
		return decode[ClusterObserved](b)
	case KindDCSUnavailable:
		return decode[DCSUnavailable](b)
	case KindDCSRestored:
		return decode[DCSRestored](b)
	case KindLeaseAcquired:
		return decode[LeaseAcquired](b)
	case KindLeaseRenewed:
		return decode[LeaseRenewed](b)
	case KindRenewalFailed:
		return decode[RenewalFailed](b)
	case KindLeaseLost:
		return decode[LeaseLost](b)
	case KindPostgresObserved:
		return decode[PostgresObserved](b)
	case KindPostgresUp:
		return decode[PostgresUp](b)
	case KindPostgresDown:
		return decode[PostgresDown](b)
	case KindPrimaryStartTimeout:
		return decode[PrimaryStartTimeout](b)
	case KindFenceBegun:
		return decode[FenceBegun](b)
	case KindKeeperLost:
		return decode[KeeperLost](b)
	case KindKeeperFound:
		return decode[KeeperFound](b)
	case KindUnexpectedPrimary:
		return decode[UnexpectedPrimary](b)
	case KindCleanShutdown:
		return decode[CleanShutdown](b)
	case KindWalReceiverEnded:
		return decode[WalReceiverEnded](b)
	case KindSyncLost:
		return decode[SyncLost](b)
	case KindPeerObserved:
		return decode[PeerObserved](b)
	case KindPauseChanged:
		return decode[PauseChanged](b)
	case KindConfigChanged:
		return decode[ConfigChanged](b)
	case KindActionFinished:
		return decode[ActionFinished](b)
	default:
		return unmarshalRequest(k, b)
	}
}

// unmarshalRequest decodes what operators and other members ask for, and are answered.
func unmarshalRequest(k Kind, b []byte) (Event, error) {
	switch k {
	case KindFailsafeAsked:
		return decode[FailsafeAsked](b)
	case KindFailsafeAnswered:
		return decode[FailsafeAnswered](b)
	case KindSwitchoverRequested:
		return decode[SwitchoverRequested](b)
	case KindFailoverRequested:
		return decode[FailoverRequested](b)
	case KindRestartRequested:
		return decode[RestartRequested](b)
	case KindRestartWithdrawn:
		return decode[RestartWithdrawn](b)
	case KindReinitRequested:
		return decode[ReinitRequested](b)
	default:
		return nil, fmt.Errorf("decode event: unknown kind %q", k)
	}
}

func decode[E Event](b []byte) (Event, error) {
	var e E
	if err := json.Unmarshal(b, &e); err != nil {
		return nil, fmt.Errorf("decode event %s: %w", e.Kind(), err)
	}
	return e, nil
}
