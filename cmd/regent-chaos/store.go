package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/pgregent/regent/internal/sandbox"
)

// storeChoice is where a command's agents keep their state: --store and --server.
type storeChoice struct{ store, server string }

// kind is the store's, or an error that names those that there are.
func (c storeChoice) kind() (sandbox.StoreKind, error) {
	kind := sandbox.StoreKind(c.store)
	if !slices.Contains(sandbox.StoreKinds(), kind) {
		return "", fmt.Errorf("--store %s: the stores are %v", c.store, sandbox.StoreKinds())
	}
	return kind, nil
}

// find looks for the server's program, before the sandbox is entered; none for the embedded store.
func (c storeChoice) find() (programs []string, err error) {
	kind, err := c.kind()
	if err != nil {
		return nil, err
	}
	path, err := sandbox.FindStore(kind, c.server)
	if err != nil {
		return nil, fmt.Errorf("%w with --server", err)
	}
	if path != "" {
		programs = []string{path}
	}
	return programs, nil
}

// start starts the server in the sandbox; nil: the embedded store has none.
func (c storeChoice) start(ctx context.Context, b *sandbox.Base) (*sandbox.StoreServer, error) {
	kind := sandbox.StoreKind(c.store)
	name := kind.Program()
	if name == "" {
		return nil, nil
	}
	if c.server != "" {
		name = filepath.Base(c.server)
	}
	return sandbox.StartStore(ctx, kind, filepath.Join(b.Bin, name), filepath.Join(b.Dir, "store"))
}
