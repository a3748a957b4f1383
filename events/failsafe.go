package events

import "slices"

// Failsafe is the "failsafe" key: the members that must agree when a primary goes on
// without the store, the primary itself among them (S12).
type Failsafe struct {
	Version Revision `json:"version,omitempty"` // 0: the key is absent
	// Members, sorted by name; none if the value can't be read.
	Members []FailsafeMember `json:"members,omitempty"`
}

// FailsafeMember is a member with the address at which it is asked.
type FailsafeMember struct {
	Name   NodeName `json:"name"`
	APIURL string   `json:"api_url"`
}

// Has reports whether the key names the member.
func (f Failsafe) Has(name NodeName) bool {
	return slices.ContainsFunc(f.Members, func(m FailsafeMember) bool { return m.Name == name })
}
