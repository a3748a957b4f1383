// Package archtest holds the rules of the architecture that a machine can check: who may
// import whom, what the pure packages must not touch, how large things may grow, and what
// must be written down. Its test runs them over the whole tree.
//
// A rule is worth having when it is cheap, when it is true, and when the sentence it prints
// tells a newcomer what to do instead. Each is proven by a planted violation in testdata: a
// check that can't fail is a defect. Exceptions are listed in exceptions.go, each with its
// reason, and one that is no longer needed is itself an error.
//
// Only syntax is read (no type checking, no go command), so the whole run takes well under a
// second. Build constraints are ignored: what is true must be true on every platform.
package archtest
