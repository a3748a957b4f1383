package config

import (
	"crypto/subtle"
	"log/slog"
)

// Secret is a password or key. However it is printed, marshalled or logged, it shows
// ***; only Reveal gives the content. The zero value is "not set".
//
// The content sits behind a pointer so that even a print of a struct which holds a
// Secret in an unexported field, where no method is called, doesn't show it.
type Secret struct{ content *string }

// NewSecret wraps s. An empty s is a set, empty secret.
func NewSecret(s string) Secret { return Secret{content: &s} }

// IsSet reports whether the secret was given at all.
func (s Secret) IsSet() bool { return s.content != nil }

// Reveal returns the content, for the one place that hands it to the other side.
func (s Secret) Reveal() string {
	if s.content == nil {
		return ""
	}
	return *s.content
}

// Equal compares contents in constant time.
func (s Secret) Equal(o Secret) bool {
	return s.IsSet() == o.IsSet() && subtle.ConstantTimeCompare([]byte(s.Reveal()), []byte(o.Reveal())) == 1
}

const hidden = "***"

// String returns ***, or nothing when the secret isn't set.
func (s Secret) String() string {
	if !s.IsSet() {
		return ""
	}
	return hidden
}

// GoString hides the content from %#v.
func (s Secret) GoString() string { return s.String() }

// MarshalJSON hides the content from JSON documents; an unset secret is null.
func (s Secret) MarshalJSON() ([]byte, error) {
	if !s.IsSet() {
		return []byte("null"), nil
	}
	return []byte(`"` + hidden + `"`), nil
}

// MarshalYAML hides the content from YAML documents.
func (s Secret) MarshalYAML() (any, error) { return s.String(), nil }

// LogValue hides the content from slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }
