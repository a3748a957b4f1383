package archtest

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Module is the path of the module whose tree is checked.
const Module = "github.com/pgregent/regent"

// Tree is a parsed source tree.
type Tree struct {
	Fset *token.FileSet
	// Files are the Go files, sorted by path; test data, generated binaries and nested
	// modules are left out.
	Files []*File
	// Texts are all files that people read, Go files included, by path.
	Texts map[string]string
}

// File is one Go file.
type File struct {
	Path string // from the root of the tree, with slashes
	Pkg  string // the folder; "." at the root
	Test bool
	AST  *ast.File
	// Imports maps the name under which a package is known in this file to its path.
	Imports map[string]string
}

// Load parses the tree in fsys. A file that doesn't parse is an error: nothing can be said
// about a tree that isn't Go.
func Load(fsys fs.FS) (*Tree, error) {
	t := &Tree{Fset: token.NewFileSet(), Texts: map[string]string{}}
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return t.enter(fsys, name)
		}
		if !d.Type().IsRegular() || !isText(name) {
			return nil
		}
		return t.add(fsys, name)
	})
	if err != nil {
		return nil, fmt.Errorf("load tree: %w", err)
	}
	return t, nil
}

// enter decides whether a folder belongs to the tree.
func (t *Tree) enter(fsys fs.FS, name string) error {
	if name == "." {
		return nil
	}
	switch path.Base(name) {
	case ".git", "bin", "dist":
		return fs.SkipDir
	}
	// The planted violations are wrong on purpose.
	if name == "internal/archtest/testdata" {
		return fs.SkipDir
	}
	_, err := fs.Stat(fsys, path.Join(name, "go.mod"))
	if err == nil {
		return fs.SkipDir
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (t *Tree) add(fsys fs.FS, name string) error {
	text, err := fs.ReadFile(fsys, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it went away while the tree was walked, as editors' files do
	}
	if err != nil {
		return err
	}
	t.Texts[name] = string(text)
	if path.Ext(name) != ".go" || strings.Contains("/"+name, "/testdata/") {
		return nil
	}
	parsed, err := parser.ParseFile(t.Fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	f := &File{
		Path: name, Pkg: path.Dir(name), AST: parsed,
		Test: strings.HasSuffix(name, "_test.go"), Imports: map[string]string{},
	}
	for _, spec := range parsed.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return err
		}
		f.Imports[importName(spec, p)] = p
	}
	t.Files = append(t.Files, f)
	return nil
}

// importName is the name under which a package is used: as given, or else guessed from its
// path the way packages are named by habit.
func importName(spec *ast.ImportSpec, importPath string) string {
	if spec.Name != nil && spec.Name.Name != "_" && spec.Name.Name != "." {
		return spec.Name.Name
	}
	if spec.Name != nil {
		return spec.Name.Name + importPath // never used as a qualifier
	}
	base := path.Base(importPath)
	if len(base) > 1 && base[0] == 'v' && strings.Trim(base[1:], "0123456789") == "" {
		base = path.Base(path.Dir(importPath))
	}
	return base
}

// isText tells by name whether people read the file.
func isText(name string) bool {
	texts := []string{".go", ".md", ".sh", ".awk", ".yml", ".yaml", ".txt", ".toml", ".mod", ".conf", ".json", ".service"}
	script := path.Ext(name) == "" && strings.Contains(name, "/testdata/") // datadriven's, and such
	return script || slices.Contains(texts, path.Ext(name)) ||
		slices.Contains([]string{"Makefile", ".ci/run", ".gitignore", "LICENSE"}, name)
}

// line returns the line number of a position.
func (t *Tree) line(p token.Pos) int { return t.Fset.Position(p).Line }

// code returns the files that are neither tests nor generated.
func (t *Tree) code() []*File {
	return slices.DeleteFunc(slices.Clone(t.Files), func(f *File) bool {
		return f.Test || ast.IsGenerated(f.AST)
	})
}

// isMain tells whether the file belongs to a program.
func (f *File) isMain() bool { return f.AST.Name.Name == "main" }

// callee returns import path and name when the expression is PACKAGE.NAME.
func (f *File) callee(e ast.Expr) (pkg, name string, ok bool) {
	sel, isSel := e.(*ast.SelectorExpr)
	if !isSel {
		return "", "", false
	}
	x, isIdent := sel.X.(*ast.Ident)
	if !isIdent {
		return "", "", false
	}
	pkg, ok = f.Imports[x.Name]
	return pkg, sel.Sel.Name, ok
}
