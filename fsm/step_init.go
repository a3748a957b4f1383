package fsm

// initRules: the agent has started and believes nothing.
func initRules() []rule {
	return []rule{
		shutdownRule(),
		{
			id: "world-observed", trigger: WorldObserved,
			when: func(s *State) (bool, string) {
				switch {
				case !s.Postgres.Known:
					return false, "PostgreSQL has not been observed yet"
				case !s.Keeper.Up:
					return false, "the keeper is not there yet"
				case s.Store.Read == 0:
					// A watch's first view may be this node's own old copy of the store;
					// the place of a member is found from what holds now.
					return false, "the store has not answered a linearizable read yet"
				default:
					return true, "the store and PostgreSQL have been observed"
				}
			},
		},
		{
			// What the keeper has armed, it stops in time. A primary without that and
			// without a word from the store may be a second one.
			id: "unclaimed-primary", trigger: PrimaryUnclaimed,
			when: func(s *State) (bool, string) {
				switch {
				case !s.Postgres.Known || !s.Keeper.Up || !s.primaryUp():
					return false, "no primary is known to run here"
				case s.paused():
					return false, "maintenance mode was on when the keeper's deadline was taken away"
				case s.Keeper.Armed:
					return false, "the keeper's deadline stands"
				case s.phaseAge() < s.Settings.TTL:
					return false, "the store has not been asked for long"
				default:
					return true, "PostgreSQL accepts writes, and for a ttl the store has not said that it may"
				}
			},
			do: func(e *effects) {
				e.beginDemotion(DemoteWork{Why: "a primary that nothing is known about", Mode: "fast"})
			},
			status: func(*State) string {
				return "demoted self because DCS is not accessible and I was a leader"
			},
		},
		{
			id: "waiting", when: func(s *State) (bool, string) {
				if s.Store.Why != "" {
					return true, "waiting for the store: " + s.Store.Why
				}
				return true, "waiting for the first observations"
			},
			do: func(e *effects) {
				if e.Store.Read == 0 {
					e.refresh() // what PostgreSQL or the keeper keep waiting asks the store for nothing
				}
			},
			status: func(*State) string { return "waiting for the DCS" },
		},
	}
}
