package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func consulOf(t *testing.T, section string) *Config {
	t.Helper()
	file := filepath.Join(t.TempDir(), "patroni.yml")
	if err := os.WriteFile(file, []byte("scope: demo\nname: n1\nconsul: "+section+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// The section consul as Patroni reads it.
func TestConsulSection(t *testing.T) {
	defaults := Consul{Scheme: "http", Verify: true, Consistency: "default", ServiceCheckInterval: 5 * time.Second}
	full := Consul{
		Host: "c1:8501", Scheme: "https", Port: 99, CACert: "ca", Cert: "cert", Key: "key", DC: "dc2",
		Consistency: "stale", Checks: []string{"disk"}, Register: true, ServiceTags: []string{"a", "b"},
		ServiceCheckInterval: 500 * time.Millisecond, ServiceCheckTLSServerName: "pg",
	}
	for section, want := range map[string]Consul{
		"{}": defaults,
		`{host: 'c1:8501', scheme: HTTPS, port: 99, verify: off, cacert: ca, cert: cert, key: key, dc: dc2, consistency: stale,
		  checks: [disk], register_service: on, service_tags: [a, b], service_check_interval: 500ms, service_check_tls_server_name: pg}`: full,
	} {
		if got := consulOf(t, section).Consul; !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, want %+v", section, got, want)
		}
	}
	if token := consulOf(t, "{token: word}").Consul.Token.Reveal(); token != "word" {
		t.Errorf("token %q", token)
	}
}

// What can't work is said at once, and secrets are not.
func TestConsulSectionIsJudged(t *testing.T) {
	for section, says := range map[string]string{
		"{host: 'a b'}":                       "which is no address",
		"{url: 'ftp://me:word@c:1'}":          `"c:1", which is no address`,
		"{url: 'http://c:1/path'}":            "which is no address",
		"{scheme: ftp}":                       "neither http nor https",
		"{consistency: strong}":               "none of default, consistent and stale",
		"{port: 70000}":                       "is no port",
		"{cacert: /etc/ca}":                   "certificates have no effect",
		"{scheme: https, key: /etc/key}":      "set without cert",
		"{service_check_interval: sometimes}": "is no time",
	} {
		var all []string
		for _, p := range Validate(consulOf(t, section), Support{Stores: []string{"consul"}}) {
			all = append(all, p.Path+" "+p.Message)
		}
		text := strings.Join(all, "\n")
		if !strings.Contains(text, says) || strings.Contains(text, "word") {
			t.Errorf("%s: want %q in\n%s", section, says, text)
		}
	}
}
