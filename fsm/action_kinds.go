package fsm

// Kind implements Action.
func (RefreshView) Kind() string { return "refresh-view" }
func (RefreshView) lane() lane   { return laneFree }

// Kind implements Action.
func (GrantLease) Kind() string { return "grant-lease" }
func (GrantLease) lane() lane   { return laneFree }

// Kind implements Action.
func (RenewLease) Kind() string { return "renew-lease" }
func (RenewLease) lane() lane   { return laneFree }

// Kind implements Action.
func (AcquireLeader) Kind() string { return "acquire-leader" }
func (AcquireLeader) lane() lane   { return laneFree }

// Kind implements Action.
func (ReleaseLeader) Kind() string { return "release-leader" }
func (ReleaseLeader) lane() lane   { return laneFree }

// Kind implements Action.
func (HandOver) Kind() string { return "hand-over" }
func (HandOver) lane() lane   { return laneFree }

// Kind implements Action.
func (AskPosition) Kind() string { return "ask-position" }
func (AskPosition) lane() lane   { return laneFree }

// Kind implements Action.
func (ProbePeers) Kind() string { return "probe-peers" }
func (ProbePeers) lane() lane   { return laneFree }

// Kind implements Action.
func (PublishMember) Kind() string { return "publish-member" }
func (PublishMember) lane() lane   { return laneFree }

// Kind implements Action.
func (ClaimInitialize) Kind() string { return "claim-initialize" }
func (ClaimInitialize) lane() lane   { return laneFree }

// Kind implements Action.
func (ClearInitialize) Kind() string { return "clear-initialize" }
func (ClearInitialize) lane() lane   { return laneFree }

// Kind implements Action.
func (WriteInitialize) Kind() string { return "write-initialize" }
func (WriteInitialize) lane() lane   { return laneFree }

// Kind implements Action.
func (WriteConfig) Kind() string { return "write-config" }
func (WriteConfig) lane() lane   { return laneFree }

// Kind implements Action.
func (WriteStatus) Kind() string { return "write-status" }
func (WriteStatus) lane() lane   { return laneFree }

// Kind implements Action.
func (WriteHistory) Kind() string { return "write-history" }
func (WriteHistory) lane() lane   { return laneFree }

// Kind implements Action.
func (ClearFailover) Kind() string { return "clear-failover" }
func (ClearFailover) lane() lane   { return laneFree }

// Kind implements Action.
func (RequestFailover) Kind() string { return "request-failover" }
func (RequestFailover) lane() lane   { return laneFree }

// Kind implements Action.
func (WriteSync) Kind() string { return "write-sync" }
func (WriteSync) lane() lane   { return laneFree }

// Kind implements Action.
func (RevokeLease) Kind() string { return "revoke-lease" }
func (RevokeLease) lane() lane   { return laneFree }

// Kind implements Action.
func (ObservePostgres) Kind() string { return "observe-postgres" }
func (ObservePostgres) lane() lane   { return laneSilent }

// Kind implements Action.
func (Bootstrap) Kind() string { return "bootstrap" }
func (Bootstrap) lane() lane   { return lanePostgres }

// Kind implements Action.
func (PostBootstrap) Kind() string { return "post-bootstrap" }
func (PostBootstrap) lane() lane   { return lanePostgres }

// Kind implements Action.
func (Clone) Kind() string { return "clone" }
func (Clone) lane() lane   { return lanePostgres }

// Kind implements Action.
func (StartStandby) Kind() string { return "start-standby" }
func (StartStandby) lane() lane   { return lanePostgres }

// Kind implements Action.
func (StartPrimary) Kind() string { return "start-primary" }
func (StartPrimary) lane() lane   { return lanePostgres }

// Kind implements Action.
func (Stop) Kind() string { return "stop" }
func (Stop) lane() lane   { return lanePostgres }

// Kind implements Action.
func (Promote) Kind() string { return "promote" }
func (Promote) lane() lane   { return lanePostgres }

// Kind implements Action.
func (SetSyncNames) Kind() string { return "set-sync-names" }
func (SetSyncNames) lane() lane   { return lanePostgres }

// Kind implements Action.
func (Follow) Kind() string { return "follow" }
func (Follow) lane() lane   { return lanePostgres }

// Kind implements Action.
func (Judge) Kind() string { return "judge" }
func (Judge) lane() lane   { return lanePostgres }

// Kind implements Action.
func (Rewind) Kind() string { return "rewind" }
func (Rewind) lane() lane   { return lanePostgres }

// Kind implements Action.
func (Checkpoint) Kind() string { return "checkpoint" }
func (Checkpoint) lane() lane   { return laneFree }

// Kind implements Action.
func (SyncSlots) Kind() string { return "sync-slots" }
func (SyncSlots) lane() lane   { return laneFree }

// Kind implements Action.
func (ExtendFence) Kind() string { return "extend-fence" }
func (ExtendFence) lane() lane   { return laneFree }

// Kind implements Action.
func (Disarm) Kind() string { return "disarm" }
func (Disarm) lane() lane   { return laneFree }

// Kind implements Action.
func (Cancel) Kind() string { return "cancel" }
func (Cancel) lane() lane   { return laneSilent }

// Kind implements Action.
func (SetTimer) Kind() string { return "set-timer" }
func (SetTimer) lane() lane   { return laneSilent }

// Kind implements Action.
func (Respond) Kind() string { return "respond" }
func (Respond) lane() lane   { return laneSilent }

// Kind implements Action.
func (Exit) Kind() string { return "exit" }
func (Exit) lane() lane   { return laneSilent }

// Operation reports whether the action works on the server or its data directory;
// at most one such action runs at a time.
func Operation(a Action) bool { return a.lane() == lanePostgres }

// Silent reports whether the action has no outcome.
func Silent(a Action) bool { return a.lane() == laneSilent }

// storeActions are the kinds that call the store; renewals aside, which have a
// cadence of their own.
func storeActions() []Action {
	return []Action{
		RefreshView{},
		GrantLease{},
		AcquireLeader{},
		ReleaseLeader{},
		HandOver{},
		PublishMember{},
		ClaimInitialize{},
		ClearInitialize{},
		WriteInitialize{},
		WriteConfig{},
		WriteStatus{},
		WriteHistory{},
		ClearFailover{},
		RequestFailover{},
		WriteSync{},
		WriteFailsafe{},
		RevokeLease{},
		ClaimMove{},
		WithdrawMove{},
		SwitchStore{},
		SettleMove{},
	}
}

// tended reports whether actions of that kind write a shared key that is written
// again as long as the view says that it needs it.
func tended(kind string) bool {
	for _, a := range []Action{
		ClearInitialize{}, WriteInitialize{}, WriteConfig{}, WriteHistory{}, ClearFailover{}, WriteSync{}, WriteFailsafe{},
		ClaimMove{}, WithdrawMove{}, SettleMove{},
	} {
		if a.Kind() == kind {
			return true
		}
	}
	return false
}

// Stored reports whether the action calls the store.
func Stored(a Action) bool { return storedKind(a.Kind()) }

func storedKind(kind string) bool {
	for _, a := range storeActions() {
		if a.Kind() == kind {
			return true
		}
	}
	return false
}
