package archtest

import (
	"path"
	"regexp"
	"strings"
)

// textRules hold for every file that people read.
func textRules() []Rule {
	later := "TO" + "DO|FIX" + "ME|X" + "XX|HA" + "CK"
	return []Rule{
		{
			Name:   "later",
			Reason: "what is left for later is forgotten; do it, or write down in docs that it isn't there",
			Check: grep(regexp.MustCompile(`\b(`+later+`)\b`), "", func(name string) bool {
				return path.Ext(name) != ".md"
			}),
		},
		{
			Name:   "machine-path",
			Reason: "the tree works in any folder, of any user, on any machine",
			Check: grep(regexp.MustCompile(`(^|[^\w.~/-])/(home|Users|root|work)/\w`), "a path of somebody's machine: ",
				func(string) bool { return true }),
		},
		{
			Name:   "dangling-link",
			Reason: "a link that leads nowhere teaches readers not to follow links",
			Check:  danglingLinks,
		},
	}
}

func grep(re *regexp.Regexp, words string, applies func(name string) bool) func(*Tree) []Finding {
	return func(t *Tree) []Finding {
		var out []Finding
		for name, text := range t.Texts {
			if !applies(name) {
				continue
			}
			for i, line := range strings.Split(text, "\n") {
				if m := re.FindString(line); m != "" {
					out = append(out, Finding{Path: name, Line: i + 1, What: words + strings.TrimSpace(line)})
				}
			}
		}
		return out
	}
}

// danglingLinks follows the relative links of Markdown files.
func danglingLinks(t *Tree) []Finding {
	link := regexp.MustCompile(`\]\(([^()\s]+)\)`)
	var out []Finding
	for name, text := range t.Texts {
		if path.Ext(name) != ".md" {
			continue
		}
		for i, line := range strings.Split(text, "\n") {
			for _, m := range link.FindAllStringSubmatch(line, -1) {
				target, _, _ := strings.Cut(m[1], "#")
				if target == "" || strings.Contains(target, ":") || t.has(path.Join(path.Dir(name), target)) {
					continue
				}
				out = append(out, Finding{Path: name, Line: i + 1, What: "links to " + target + ", which isn't there"})
			}
		}
	}
	return out
}

// has tells whether a file or folder of that name is in the tree.
func (t *Tree) has(name string) bool {
	for existing := range t.Texts {
		if existing == name || strings.HasPrefix(existing, name+"/") {
			return true
		}
	}
	return false
}
