package archtest

// Exceptions returns what is excused in this tree, each with its reason.
func Exceptions() []Exception {
	return []Exception{
		{
			Rule: "library-output", Path: "pgmgr/pgtest/main.go",
			Reason: "it is the TestMain of other packages: it re-runs the test program as another user and ends with its exit code",
		},
		{
			Rule: "library-output", Path: "internal/sandbox/hosts/enter.go",
			Reason: "it re-runs the program that calls it, which goes on reading and writing where it did",
		},
	}
}
