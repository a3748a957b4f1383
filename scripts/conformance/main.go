// Conformance prints the results that runs of the store's conformance suite left in a
// folder as one table, properties × backends. `make conformance` uses it.
package main

import (
	"fmt"
	"os"

	"github.com/pgregent/regent/dcs/dcstest"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: conformance FOLDER")
		os.Exit(2)
	}
	table, err := dcstest.Tabulate(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Print(table)
}
