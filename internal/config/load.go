package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// ErrEmpty is returned when no source gave a single setting.
var ErrEmpty = errors.New("the configuration is empty")

// Load reads a local configuration. path is a file, or a folder whose *.yml and *.yaml
// files are merged in the order of their names; environ, in the form of os.Environ, is
// patched over it. If nothing is at path (or path is empty) the document in
// PATRONI_CONFIGURATION is everything; without that variable the environment alone is.
//
// What can't be read at all is an error: Problems with every syntax error at once, or
// one of the file system's. Everything else that is wrong is told by Validate. Load
// keeps nothing, so the agent calls it again to reload, with the environment it was
// started with, and keeps the old Config when it fails.
func Load(path string, environ []string) (*Config, error) {
	vars := variables(environ)
	root, problems, err := readFiles(path)
	if err != nil {
		return nil, err
	}
	source := path
	if root == nil {
		if text, ok := vars["CONFIGURATION"]; ok {
			return Parse(configurationVariable, []byte(text))
		}
		root, source = newMap(pos{}), "the environment"
	}
	env, envProblems := environmentTree(vars)
	root = root.clone()
	patchTree(root, env)
	if len(root.keys) == 0 {
		if path != "" && source != path {
			return nil, fmt.Errorf("%s doesn't exist, and no %s* variable is set: %w", path, envPrefix, ErrEmpty)
		}
		return nil, fmt.Errorf("%s: %w", source, ErrEmpty)
	}
	return finish(source, root, append(problems, envProblems...)), nil
}

// Parse reads one document as a whole configuration. source is its name in messages.
func Parse(source string, text []byte) (*Config, error) {
	root, problems := parseYAML(source, text)
	if root == nil {
		return nil, Problems(problems)
	}
	if root.isNull() {
		return nil, fmt.Errorf("%s: %w", source, ErrEmpty)
	}
	if root.kind != kindMap {
		return nil, Problems{notMapping(root)}
	}
	return finish(source, root, problems), nil
}

func finish(source string, root *tree, problems []Problem) *Config {
	c := decodeConfig(source, normalizeLocal(root))
	c.problems = problems
	return c
}

func notMapping(t *tree) Problem {
	return problemAt(t.pos, Error, "", "the document is "+t.kind.String()+", not a mapping",
		"begin with `scope: NAME` at the left margin")
}

// readFiles returns the merged tree of a file or folder; nil when nothing is there.
func readFiles(path string) (*tree, []Problem, error) {
	if path == "" {
		return nil, nil, nil
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil, nil
	case err != nil:
		return nil, nil, unreadable(err)
	case info.Mode().IsRegular():
		return mergeFiles([]string{path})
	case !info.IsDir():
		return nil, nil, fmt.Errorf("read configuration %s: neither a file nor a folder", path)
	}
	entries, err := os.ReadDir(path) // sorted by name
	if err != nil {
		return nil, nil, unreadable(err)
	}
	var files []string
	for _, e := range entries {
		name := filepath.Join(path, e.Name())
		if !strings.HasSuffix(name, ".yml") && !strings.HasSuffix(name, ".yaml") {
			continue
		}
		if info, err := os.Stat(name); err == nil && info.Mode().IsRegular() {
			files = append(files, name)
		}
	}
	return mergeFiles(files)
}

func unreadable(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("read configuration: %w: give the file to the agent's user (it holds passwords: mode 0600)", err)
	}
	return fmt.Errorf("read configuration: %w", err)
}

func mergeFiles(files []string) (*tree, []Problem, error) {
	root := newMap(pos{})
	var problems, fatal Problems
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, nil, unreadable(err)
		}
		t, found := parseYAML(file, text)
		switch {
		case t == nil:
			fatal = append(fatal, found...)
		case t.isNull():
		case t.kind != kindMap:
			fatal = append(fatal, notMapping(t))
		default:
			problems = append(problems, found...)
			patchTree(root, t)
			root.pos = t.pos
		}
	}
	if len(fatal) > 0 {
		return nil, nil, fatal
	}
	return root, problems, nil
}
