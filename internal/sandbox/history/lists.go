package history

import "time"

// ListOp is one question about a list of the database and its answer: an append, which returns
// the list, or a read.
type ListOp struct {
	// Client asks one question at a time.
	Client int
	// Key names the list, Append the value that was to be appended; 0: it was only read.
	Key, Append int64
	// Unknown: nobody knows what came of it, and Values say nothing.
	Unknown bool
	// Values are the list as the answer showed it.
	Values []int64
	// Node answered, over the client's connection of that number; Replica: in recovery.
	Node    string
	Conn    int
	Replica bool

	Sent, Answered time.Duration
}
