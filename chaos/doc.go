// Package chaos breaks clusters on purpose and has a judge look at what comes of it.
//
//	Arena = sandbox cluster + writer + watcher
//	  │
//	  ├── Trial: settle ─▶ strike ─▶ wait until whole ─▶ evidence ─▶ judge ─▶ verdict
//	  │
//	  ├── Soak:  random strikes, one trial each, until the first violation; what agents and
//	  │          keepers use is sampled against budgets, at the end every journal is replayed
//	  └── Bench: each line of the speed goals, some trials each; p50 and max beside the goal
//	             and beside the floor, which is the same done to bare PostgreSQL
//
// It looks at the product from outside: processes, SQL, HTTP and journals. Nothing of the
// product leans on it.
package chaos
