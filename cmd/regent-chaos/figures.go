package main

import (
	"bytes"
	"fmt"
	"os"
)

// The marks between which a document holds what is measured. The rest of it is written by hand.
const (
	figuresBegin = "<!-- figures: begin (make soak writes what is between the marks) -->\n"
	figuresEnd   = "<!-- figures: end -->\n"
)

// placeForFigures reports what is wrong with a document that figures are to be put into, before
// anybody spends an hour on them.
func placeForFigures(file string) error {
	text, err := os.ReadFile(file)
	if err == nil {
		_, err = withFigures(text, nil)
	}
	if err != nil {
		return fmt.Errorf("look for the figures' place in %s: %w", file, err)
	}
	return nil
}

// putFigures replaces what is between the marks of a document.
func putFigures(file string, figures []byte) error {
	old, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("put the figures into the report: %w", err)
	}
	text, err := withFigures(old, figures)
	if err != nil {
		return fmt.Errorf("put the figures into %s: %w", file, err)
	}
	if err := os.WriteFile(file, text, 0o644); err != nil {
		return fmt.Errorf("put the figures into the report: %w", err)
	}
	return nil
}

func withFigures(text, figures []byte) ([]byte, error) {
	head, rest, begun := bytes.Cut(text, []byte(figuresBegin))
	_, tail, ended := bytes.Cut(rest, []byte(figuresEnd))
	if !begun || !ended {
		return nil, fmt.Errorf("it lacks the marks %q and %q", figuresBegin, figuresEnd)
	}
	return bytes.Join([][]byte{head, []byte(figuresBegin), []byte("\n"), figures, []byte("\n"), []byte(figuresEnd), tail}, nil), nil
}
