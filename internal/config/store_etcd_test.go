package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The section etcd3 as Patroni reads it: of proxy, url, srv, hosts and host the first counts.
func TestEtcd3Section(t *testing.T) {
	tests := []struct{ section, want string }{
		{"{host: '10.0.0.1'}", "[http://10.0.0.1:2379]"},
		{"{host: '10.0.0.1:4001', protocol: https}", "[https://10.0.0.1:4001]"},
		{"{hosts: 'a:1, b'}", "[http://a:1 http://b:2379]"},
		{"{hosts: [a:1, 'https://b', '[::1]:3']}", "[http://a:1 https://b:2379 http://[::1]:3]"},
		{"{url: 'https://me:pass@e:4/v3', hosts: [a:1]}", "[https://e:4] me:pass"},
		{"{url: 'https://me:pass@e:4', username: you, password: word}", "[https://e:4] you:word"},
		{"{proxy: 'http://p:5', url: 'http://e:4'}", "[http://p:5] fixed"},
		{"{hosts: [a:1], use_proxies: on}", "[http://a:1] fixed"},
		{"{srv_domain: example.com, host: a, srv_suffix: dev}", "[] srv example.com dev"},
	}
	for _, tc := range tests {
		e := etcdOf(t, tc.section).Etcd3
		got := fmt.Sprint(e.Endpoints)
		if e.Username != "" {
			got += " " + e.Username + ":" + e.Password.Reveal()
		}
		if e.Fixed {
			got += " fixed"
		}
		if e.SRV != "" {
			got += " srv " + e.SRV + " " + e.SRVSuffix
		}
		if got != tc.want {
			t.Errorf("%s: got %s, want %s", tc.section, got, tc.want)
		}
	}
}

func etcdOf(t *testing.T, section string) *Config {
	t.Helper()
	file := filepath.Join(t.TempDir(), "patroni.yml")
	if err := os.WriteFile(file, []byte("scope: demo\nname: n1\netcd3: "+section+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// What can't work is said at once, and passwords are not.
func TestEtcd3SectionIsJudged(t *testing.T) {
	for section, says := range map[string]string{
		"{username: u, password: p}":                           "etcd3 names no server",
		"{host: 'a b'}":                                        "which is no address",
		"{url: 'ftp://me:word@e:4'}":                           `"e:4", which is no address`,
		"{host: a, protocol: gopher}":                          "neither http nor https",
		"{host: a, cacert: /ca.pem}":                           "certificates have no effect",
		"{host: a, protocol: https, key: /k.pem}":              "is set without cert",
		"{host: a, username: u}":                               "etcd3.password",
		"{hosts: ['https://a', 'https://b'], cacert: /ca.pem}": "",
	} {
		var found []string
		for _, p := range Validate(etcdOf(t, section), Support{Stores: []string{"etcd3"}}) {
			if strings.HasPrefix(p.Path, "etcd3") {
				found = append(found, p.String())
			}
		}
		all := strings.Join(found, "\n")
		if (says == "") != (all == "") || !strings.Contains(all, says) {
			t.Errorf("%s: want %q, got:\n%s", section, says, all)
		}
		if strings.Contains(all, "word@") || strings.Contains(all, "me:word") {
			t.Errorf("%s: a password is shown:\n%s", section, all)
		}
	}
}
