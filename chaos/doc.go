// Package chaos breaks clusters on purpose and has a judge look at what comes of it.
//
//	Arena = sandbox cluster + writer + watcher
//	  │
//	  ├── Trial: settle ─▶ strike ─▶ wait until whole ─▶ evidence ─▶ judge ─▶ verdict
//	  │
//	  ├── Soak:  random strikes, one trial each, until the first violation; at the end every
//	  │          journal is replayed
//	  └── Bench: each line of the speed goals, some trials each; p50 and max beside the goal
//
// It looks at the product from outside: processes, SQL, HTTP and journals. Nothing of the
// product leans on it.
package chaos
