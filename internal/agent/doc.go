// Package agent is the imperative shell around the machine of package fsm.
//
//	sensors ──▶ mailbox ──▶ loop: journal ▶ Step ▶ journal ──▶ executors
//	  store watch   (coalesces                │                  store, PostgreSQL (one
//	  keeper         observations)            ▼                  lane), peers, timer
//	  PostgreSQL                          snapshots                    │
//	  operators ◀──── REST, logs ◀────────────┘        outcomes ───────┘──▶ mailbox
//
// One goroutine, the loop, owns the machine's state; there is no lock around it and
// no second writer. Sensors and executors are the only translators between the
// worlds: packages dcs and pgmgr never see an event, and fsm never sees a connection.
//
// What leaves the process has a deadline. What is safe only under the lease gets a
// context that ends with the belief (fsm.Ordered.Until).
package agent
