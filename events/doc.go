// Package events is the vocabulary of Regent: the typed facts that the agent's
// machine is fed with, and the small value types they are made of.
//
// The package is pure. It reads no clock, no file, no socket and no random
// number, so that a journal of events means the same on every machine. An event
// is a fact in the past tense; what the machine does about it is a trigger (an
// edge of its transition table) and lives in package fsm.
package events
