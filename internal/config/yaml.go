package config

import (
	"bytes"
	"errors"
	"io"

	"go.yaml.in/yaml/v3"
)

// maxValues bounds a document after its aliases are expanded, so that a file of nested
// aliases can't eat the machine's memory.
const maxValues = 200_000

// parseYAML reads one YAML 1.1 document. An empty document gives a null tree. The
// tree is nil when the text can't be read; then the problems hold the one Error why.
func parseYAML(source string, text []byte) (*tree, []Problem) {
	doc, err := decodeDocument(text)
	if err != nil {
		return nil, []Problem{syntaxProblem(source, text, err)}
	}
	c := &converter{source: source}
	if doc == nil {
		return &tree{kind: kindNull, pos: pos{Source: source, Line: 1, Column: 1}}, nil
	}
	t := c.convert(doc)
	if c.failed {
		return nil, c.problems
	}
	return t, c.problems
}

var errSecondDocument = errors.New("a second document starts here")

// decodeDocument returns the root of the only document; nil if there is none.
func decodeDocument(text []byte) (*yaml.Node, error) {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc, second yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		return nil, err
	}
	if err := dec.Decode(&second); err == nil {
		return nil, errSecondDocument
	} else if !errors.Is(err, io.EOF) {
		return nil, err
	}
	if len(doc.Content) == 0 {
		return nil, nil
	}
	return doc.Content[0], nil
}

// converter turns yaml nodes into trees, collecting what is wrong on the way.
type converter struct {
	source   string
	problems []Problem
	failed   bool
	values   int
	open     []*yaml.Node // the anchors being expanded, to see a cycle
}

func (c *converter) at(n *yaml.Node) pos {
	return pos{Source: c.source, Line: n.Line, Column: n.Column}
}

func (c *converter) fail(n *yaml.Node, message, hint string) *tree {
	if !c.failed { // the first is the cause; a cycle would repeat it
		c.problems = append(c.problems, problemAt(c.at(n), Error, "", message, hint))
	}
	c.failed = true
	return &tree{pos: c.at(n)}
}

func (c *converter) convert(n *yaml.Node) *tree {
	if c.values++; c.values > maxValues {
		return c.fail(n, "the document expands to too many values", "write the repeated part once, without aliases")
	}
	switch n.Kind {
	case yaml.AliasNode:
		for _, o := range c.open {
			if o == n.Alias {
				return c.fail(n, "the alias *"+n.Value+" stands inside its own anchor", "write the value out")
			}
		}
		c.open = append(c.open, n.Alias)
		t := *c.convert(n.Alias)
		c.open = c.open[:len(c.open)-1]
		t.pos = c.at(n)
		return &t
	case yaml.SequenceNode:
		if tag := n.ShortTag(); tag != "!!seq" {
			return c.fail(n, "the tag "+tag+" isn't supported", "remove it")
		}
		t := &tree{kind: kindList, pos: c.at(n), list: make([]*tree, 0, len(n.Content))}
		for _, item := range n.Content {
			t.list = append(t.list, c.convert(item))
		}
		return t
	case yaml.MappingNode:
		if tag := n.ShortTag(); tag != "!!map" {
			return c.fail(n, "the tag "+tag+" isn't supported", "remove it")
		}
		return c.mapping(n)
	case yaml.ScalarNode:
		return c.scalar(n)
	}
	return c.fail(n, "unexpected YAML content", "write a mapping, a list or a scalar")
}

func (c *converter) scalar(n *yaml.Node) *tree {
	at := c.at(n)
	if n.Style&yaml.TaggedStyle == 0 {
		if n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
			return newString(n.Value, at)
		}
		if n.Value == "=" {
			return newString("=", at)
		}
		return resolvePlain(n.Value, at)
	}
	t := resolvePlain(n.Value, at)
	switch tag := n.ShortTag(); {
	case tag == "!!str", tag == "!!timestamp":
		return newString(n.Value, at)
	case tag == "!!null":
		return &tree{kind: kindNull, pos: at}
	case tag == "!!bool" && t.kind == kindBool, tag == "!!int" && t.kind == kindInt, tag == "!!float" && t.kind == kindFloat:
		return t
	case tag == "!!float" && t.kind == kindInt:
		f := *t
		f.kind, f.num = kindFloat, t.num+".0"
		return &f
	default:
		return c.fail(n, "the tag "+tag+" isn't supported here", "remove it, or quote the value")
	}
}

// mapping converts the pairs in order. A key given twice keeps its first place and its
// last value, as in Python.
func (c *converter) mapping(n *yaml.Node) *tree {
	t := newMap(c.at(n))
	var merged []*tree
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Kind == yaml.AliasNode && k.Alias != nil && k.Alias.Kind == yaml.ScalarNode {
			k = k.Alias
		}
		if k.Kind != yaml.ScalarNode {
			return c.fail(k, "a key must be a plain word", "write it as `key: value`")
		}
		val := c.convert(v)
		if k.Style == 0 && k.Value == "<<" {
			merged = append(merged, c.mergeSources(v, val)...)
			continue
		}
		if old := t.get(k.Value); old != nil {
			p := problemAt(c.at(k), Notice, k.Value, "is given a second time; the last one counts", "remove one of them")
			c.problems = append(c.problems, p)
		}
		t.set(k.Value, c.at(k), val)
	}
	for _, m := range merged {
		for _, e := range m.keys {
			if t.get(e.key) == nil {
				t.set(e.key, e.pos, e.val)
			}
		}
	}
	return t
}

// mergeSources returns the mappings that a `<<` key names, most important first.
func (c *converter) mergeSources(n *yaml.Node, val *tree) []*tree {
	if val.kind == kindMap {
		return []*tree{val}
	}
	if val.kind == kindList {
		for _, item := range val.list {
			if item.kind != kindMap {
				c.fail(n, "`<<` takes mappings only", "name an anchor of a mapping")
				return nil
			}
		}
		return val.list
	}
	c.fail(n, "`<<` takes a mapping", "name an anchor of a mapping")
	return nil
}
