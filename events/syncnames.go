package events

import (
	"slices"
	"strconv"
	"strings"
)

// SyncNames is what synchronous_standby_names is to say. The zero value: commits wait
// for nobody.
type SyncNames struct {
	// Names: each commit waits for every one of them.
	Names []NodeName `json:"names,omitempty"`
	// Hold: without names, commits wait until there is one (strict mode).
	Hold bool `json:"hold,omitempty"`
	// Own: synchronous mode is off, and the setting of the configuration counts.
	Own bool `json:"own,omitempty"`
}

// SyncHolder is the name that strict mode waits for while there is no standby: nobody
// may be called that. It is Patroni's, so that its tools know it.
const SyncHolder = "__patroni_strict_sync_replica_placeholder__"

// Text is the setting's value; Own has none of its own.
func (n SyncNames) Text() string {
	names := slices.Clone(n.Names)
	if len(names) == 0 && n.Hold {
		names = []NodeName{SyncHolder}
	}
	slices.Sort(names)
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = quoteSyncName(string(name))
	}
	switch len(quoted) {
	case 0:
		return ""
	case 1:
		return quoted[0]
	default:
		return strconv.Itoa(len(quoted)) + " (" + strings.Join(quoted, ",") + ")"
	}
}

// quoteSyncName quotes a name unless the setting's grammar takes it as it is.
func quoteSyncName(name string) string {
	plain := name != "" && !strings.EqualFold(name, "first") && !strings.EqualFold(name, "any")
	for i, r := range name {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '_'
		plain = plain && (letter || i > 0 && (r >= '0' && r <= '9' || r == '$'))
	}
	if plain {
		return name
	}
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
}

// ParseSyncNames reads the setting's value: names are those that each commit waits for,
// and holds says that commits wait for somebody. Where any of several will do, or the
// text can't be read, nobody can be counted on.
func ParseSyncNames(text string) (names []NodeName, holds bool) {
	all, numbered, rest := syncList(text)
	n, err := strconv.Atoi(numbered)
	switch {
	case strings.TrimSpace(text) == "":
		return nil, false
	case rest != "" || slices.Contains(all, "*"):
		return nil, true
	case err == nil && n == len(all), numbered == "" && len(all) == 1:
	default:
		return nil, true
	}
	for _, name := range all {
		if name != SyncHolder {
			names = append(names, NodeName(name))
		}
	}
	return names, true
}

// syncList takes the setting apart: the names, how many of them count ("" if the text
// doesn't say), and what could not be read.
func syncList(text string) (all []string, number, rest string) {
	words, rest := syncWords(text)
	if len(words) > 0 && (strings.EqualFold(words[0], "first") || strings.EqualFold(words[0], "any")) {
		words = words[1:]
	}
	if len(words) > 1 && words[1] == "(" {
		if words[len(words)-1] != ")" {
			return nil, "", text
		}
		number, words = words[0], words[2:len(words)-1]
	}
	for i, w := range words {
		switch {
		case i%2 == 1 && w != ",", i%2 == 0 && strings.Contains(",()", w):
			return nil, "", text
		case i%2 == 0:
			all = append(all, strings.TrimPrefix(w, `"`))
		}
	}
	if len(words)%2 == 0 && len(words) > 0 {
		rest = text
	}
	return all, number, rest
}

// syncWords are the setting's words. A quoted one keeps its first quote, so that it isn't
// taken for a keyword.
func syncWords(text string) (words []string, rest string) {
	for text = strings.TrimSpace(text); text != ""; text = strings.TrimSpace(text) {
		switch end := strings.IndexAny(text, " \t\n,()\""); {
		case text[0] == '"':
			word, tail, ok := unquoteSyncName(text[1:])
			if !ok {
				return words, text
			}
			words, text = append(words, `"`+word), tail
		case end == 0:
			words, text = append(words, text[:1]), text[1:]
		case end < 0:
			words, text = append(words, text), ""
		default:
			words, text = append(words, text[:end]), text[end:]
		}
	}
	return words, ""
}

func unquoteSyncName(text string) (word, tail string, ok bool) {
	for {
		end := strings.IndexByte(text, '"')
		switch {
		case end < 0:
			return "", "", false
		case strings.HasPrefix(text[end:], `""`):
			word, text = word+text[:end+1], text[end+2:]
		default:
			return word + text[:end], text[end+1:], true
		}
	}
}
